"""How wrong may a prediction be?"""
