"""Which charts are drawn, and how?"""
