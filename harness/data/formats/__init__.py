"""Files of tokens, read where they lie: formats, the index of their documents, and their checks."""
