"""Which run of a roster gets which chips?"""
