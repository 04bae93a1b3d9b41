"""Programs that another process has traced: known by what they are made of, loaded without a trace."""
