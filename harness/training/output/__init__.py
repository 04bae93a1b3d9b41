"""Files that training writes while it runs."""
