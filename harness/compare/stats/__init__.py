"""Which effect do paired numbers carry, and how sure is it?"""
