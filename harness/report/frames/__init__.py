"""Which data frames do charts and tables read?"""
