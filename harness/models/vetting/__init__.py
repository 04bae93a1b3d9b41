"""Does what comes from outside keep its word?"""
