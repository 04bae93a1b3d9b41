"""How is a language model built?"""
