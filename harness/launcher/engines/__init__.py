"""Where do workers run?"""
