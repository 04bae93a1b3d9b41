"""How much memory and time does a step take on a described chip?"""
