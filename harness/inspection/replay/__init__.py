"""Is a run bitwise the same when it is trained again?"""
