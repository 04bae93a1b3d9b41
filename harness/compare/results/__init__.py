"""Which values make up a comparison?"""
