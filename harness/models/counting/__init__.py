"""How many FLOPs does a traced program take?"""
