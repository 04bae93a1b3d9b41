"""How do the processes of one run find each other and agree?"""
