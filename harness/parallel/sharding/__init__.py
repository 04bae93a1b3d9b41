"""How are arrays divided over the devices of a mesh?"""
