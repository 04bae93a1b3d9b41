"""Which keys does a config have?"""
