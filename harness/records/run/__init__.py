"""What does one run leave on disk?"""
