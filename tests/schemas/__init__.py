"""Schemas of the JSON that the verbs print: made from the types of the results, and held against outputs."""
