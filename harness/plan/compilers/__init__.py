"""What do compilers say of a planned step?"""
