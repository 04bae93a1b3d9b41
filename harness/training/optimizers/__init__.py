"""How does a gradient become an update?"""
