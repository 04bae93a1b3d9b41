"""Completion of the command line by the shell's TAB, which argcomplete asks for."""
