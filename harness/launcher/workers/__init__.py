"""How are workers started, watched and restarted?"""
