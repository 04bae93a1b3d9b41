"""The sockets of a decoder: what can be registered, and what it is told."""
