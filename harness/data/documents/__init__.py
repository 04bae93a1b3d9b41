"""Documents of files: of a range of a file, of some of its row groups, of a segment of its expanded bytes."""
