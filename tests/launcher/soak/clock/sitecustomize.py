"""A wall clock that jumps while a process runs, and a disk that is full where none can be mounted.

Every Python process of a soak imports this. `$SOAK_CLOCK` names a file that holds the seconds by which the
wall clock is wrong now; the monotonic clock never jumps. While the file `$SOAK_FULL` exists, nothing can be
flushed to disk.
"""

import errno
import os
import time

_time, _gmtime, _localtime, _strftime = time.time, time.gmtime, time.localtime, time.strftime
_fsync = os.fsync


def _wrong_by():
    try:
        with open(os.environ["SOAK_CLOCK"]) as file:
            return float(file.read())
    except (OSError, ValueError, KeyError):
        return 0.0


def _flush(descriptor):
    if os.path.exists(os.environ.get("SOAK_FULL", "")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _fsync(descriptor)


time.time = lambda: _time() + _wrong_by()
time.time_ns = lambda: int(time.time() * 1e9)
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
time.strftime = lambda words, when=None: _strftime(words, time.localtime() if when is None else when)
os.fsync = _flush
