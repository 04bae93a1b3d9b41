"""Tokenizers: from text to tokens and back."""
