"""What follows at one scale, and over all scales?"""
