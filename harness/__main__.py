"""Entry point of the command `harness`, and of `python -m harness`."""

from __future__ import annotations

import os
import sys

STREAMS = "PYTHONIOENCODING"
"""Environment variable with the encoding of the standard streams."""


def main() -> int:
    """Run the command, and return its exit status. Ctrl-C ends it in one word from here on, also while its
    modules are imported."""
    try:
        _use_utf8()
        from harness.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130  # cli.exit_status.INTERRUPTED, which may not have been imported


def _use_utf8() -> None:
    """Start Python again in its UTF-8 mode in a shell with another encoding, where it would read and write
    files, and pass on paths, in that one. What is printed keeps the encoding of the terminal."""
    if os.environ.get("PYTHONUTF8") == "1" or sys.getfilesystemencoding() == "utf-8":
        os.environ.pop(STREAMS, None)  # workers write their logs in UTF-8
        return
    if sys.stdout is not None:
        os.environ.setdefault(STREAMS, sys.stdout.encoding)
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which `-m` puts before the standard library
    sys.exit(main())
