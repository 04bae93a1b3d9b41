"""What can be chosen? Typed configs, how they are composed, and what makes two runs a fair pair."""
