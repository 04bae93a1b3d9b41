"""Which programs does a run compile, and where are they kept?"""
