"""Movement along a sequence: shifts, short convolutions, recurrences."""
