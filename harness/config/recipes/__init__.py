"""Recipes: sizes by one word, after published rules, and durations in steps, tokens or minutes."""
