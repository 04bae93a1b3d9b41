"""Initial values of parameters: their distributions, and the rule that chooses them."""
