"""How is the HTML report put together?"""
