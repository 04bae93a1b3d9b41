"""How well does the cost model predict published runs?"""
