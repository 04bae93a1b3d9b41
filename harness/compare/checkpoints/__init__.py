"""How far are two checkpoints apart?"""
