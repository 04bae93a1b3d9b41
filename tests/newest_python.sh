#!/usr/bin/env bash
# Print a Python of the newest series that requirements-newest.lock is for, or nothing. Names alone do not tell:
# pyenv puts a command on the path for each series that it has, and most of them only say so.
for series in 3.13 3.12; do
  for python in "python$series" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$series".*/bin/python; do
    if "$python" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$series')" 2>/dev/null; then
      command -v "$python"
      exit
    fi
  done
done
