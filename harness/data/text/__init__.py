"""How do documents become tokens?"""
