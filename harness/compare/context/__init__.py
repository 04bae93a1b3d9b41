"""What else must a reader of a verdict know?"""
