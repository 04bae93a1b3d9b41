"""How do images become training examples?"""
