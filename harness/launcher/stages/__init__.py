"""Which stages does a sweep go through?"""
