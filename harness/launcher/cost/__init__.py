"""How long will a run take on this machine?"""
