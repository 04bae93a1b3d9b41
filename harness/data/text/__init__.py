"""Tokens from documents."""
