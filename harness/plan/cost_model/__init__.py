"""Memory and time of a step on a described chip."""
