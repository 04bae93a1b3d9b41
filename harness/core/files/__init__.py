"""Files that users bring: folders of them, and how far a compressed one may expand."""
