"""What does a worker process do with the runs it is given?"""
