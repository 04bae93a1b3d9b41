"""What does training write while it runs?"""
