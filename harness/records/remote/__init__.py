"""Records behind a URL."""
