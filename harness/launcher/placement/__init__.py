"""Which run trains when, and on which devices?"""
