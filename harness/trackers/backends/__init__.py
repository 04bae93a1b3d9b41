"""Backends of the mirror, a file each, which alone imports the package of its tracker."""
