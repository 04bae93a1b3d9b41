"""What does a sweep leave on disk?"""
