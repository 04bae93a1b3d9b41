"""Limits of the structure. Lower them as the package improves; never raise them."""

import math

LIMITS: dict[str, float] = {
    "circles": 0,
    "arrows": 0,
    "sub_arrows": 0,
    "folders": 12,
    "openings": 0.1,
    "names": 0.4,
    "repeated_files": 6,
    "repeated_classes": 0,
    "missing": 0.1,
    "long_functions": 0,
    "long_files": 0,
    "lines": math.inf,
}
"""Largest accepted value of each measure; shares in percent. Lines are printed only: features need some."""

MAX_FILES_IN_ROOM = int(LIMITS["folders"])
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
