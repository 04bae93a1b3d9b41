"""Over which devices and processes does a run spread?"""
