"""How are the records behind a URL read?"""
