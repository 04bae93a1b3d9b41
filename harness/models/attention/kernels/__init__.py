"""How are the softmax sums of attention computed?"""
