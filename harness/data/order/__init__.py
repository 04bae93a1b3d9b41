"""Which example comes at which place?"""
