"""One random bit flipped in one file of a sweep or of the cache, many times over: `make test-flips`."""
