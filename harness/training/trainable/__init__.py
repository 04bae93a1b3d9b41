"""Which parameters of the model are trained?"""
