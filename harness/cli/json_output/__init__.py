"""JSON that the verbs print, and its published schemas."""
