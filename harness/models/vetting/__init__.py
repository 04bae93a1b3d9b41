"""Does what comes from outside keep its word? Checks before anything is trained."""
