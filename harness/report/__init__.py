"""How is a comparison, a sweep or a plan shown?"""
