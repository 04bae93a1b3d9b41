"""How is one run trained?"""
