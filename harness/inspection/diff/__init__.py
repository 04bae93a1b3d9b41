"""In what do two checkpoints differ?"""
