"""Which tables are printed, and how?"""
