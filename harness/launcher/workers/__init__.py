"""Workers of a sweep: starting, watching and restarting them."""
