"""What do finished pairs say of runs without a sibling?"""
