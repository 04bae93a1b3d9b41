"""Data of a lab's size, made on the spot in a folder that is removed again: `make test-data`.

AB_TEST_GB (1) is the size of a corpus in GB, AB_TEST_FOLDER the folder for it; both may be large.
"""
