"""Files of a sweep."""
