"""What do the runs and logs say, and which of them form pairs?"""
