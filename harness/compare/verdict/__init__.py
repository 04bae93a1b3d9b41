"""Decisions from the statistics: flags, verdicts at one scale and over all scales, the promotion gate."""
