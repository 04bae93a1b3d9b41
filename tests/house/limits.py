"""Limits of the structure. Lower them as the package improves; never raise them."""

LIMITS: dict[str, float] = {
    "circles": 0,
    "arrows": 0,
    "sub_arrows": 0,
    "folders": 12,
    "openings": 2.0,
    "names": 1.0,
    "repeated_files": 8,
    "repeated_classes": 5,
    "missing": 5.0,
    "long_functions": 0,
    "long_files": 0,
    "lines": 37_800,
}
"""Largest accepted value of each measure; shares in percent."""

MAX_FILES_IN_ROOM = int(LIMITS["folders"])
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
