"""The decoder of text models."""
