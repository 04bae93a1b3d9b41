"""Inputs of a verdict: runs, logs, the rule and the ledger, and the pairing of runs."""
