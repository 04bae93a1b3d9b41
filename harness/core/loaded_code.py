"""Code that this process has loaded from outside installed packages, and whether it reads anything else.

A hook of the interpreter (PEP 578) is called with the code of each module as it is run, so this is the code
that the process works with, whatever has become of its file since: one that was edited under a running
process, or a stale `.pyc`. The hook is called for each file that is opened, too: what users' modules read,
when they are imported or called, is not in their code. A forked child knows what its parent has loaded.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import site
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_OUTSIDE = (
    "open", "os.listdir", "os.scandir", "glob.glob", "os.system", "os.exec", "os.posix_spawn", "os.fork",
    "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "socket.gethostname", "urllib.Request",
    "sqlite3.connect",
)  # fmt: skip
"""Events of the interpreter at which something from outside the process may come in."""
_STABLE_MARSHAL = 2
"""Version of the format of code that has no references: they differ between loaded and compiled code."""
_IMPORT_SYSTEM = "<frozen importlib"
_PACKAGE = f"{Path(__file__).parents[1]}/"
_SITE_NAMES = ("site-packages", "dist-packages")

_codes: list[CodeType] = []
_outside_reads: list[str] = []
"""Events at which users' modules, called by this package, took something from outside the process."""
_installed_at: list[float] = []


def install() -> None:
    """Record from now on what is loaded. Call it before other modules are imported; a second call does
    nothing."""
    if not _installed_at:
        installed_folders()  # which imports modules itself, so not within the hook
        _installed_at.append(time.time())
        sys.addaudithook(_hook)


def outside_reads() -> list[str]:
    """Return what users' modules did that brings something in from outside their code: files that they
    opened, but for modules, commands that they started, hosts that they asked. What libraries do without
    Python is not seen."""
    return [*_outside_reads]


def own_code(without: Sequence[str] = ()) -> list[CodeType | Path] | None:
    """Return the code of each loaded module outside installed packages, in the order of loading; of one that
    was loaded before the hook, its file. None if some code is not known: of a file that has changed since, or
    where an installed program or a prompt calls this package, such as a notebook or a runner of tests, whose
    code may replace anything. `without`: rooms of this package to leave out."""
    skipped = tuple(f"{_PACKAGE}{room}/" for room in without)
    codes = [*_codes]
    unrecorded = _unrecorded_files(len(codes), len(sys.modules))
    if _is_called_by_installed() or not all(map(_is_unchanged, unrecorded)):
        return None
    return [*(code for code in codes if not skipped or not code.co_filename.startswith(skipped)), *unrecorded]


@functools.lru_cache(maxsize=1)
def _unrecorded_files(num_codes: int, num_modules: int) -> list[Path]:
    """Return the files of modules that were loaded before the hook, cached until another one is loaded."""
    recorded = {code.co_filename for code in [*_codes]}
    files = {file for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))}
    return [Path(file) for file in sorted(files - recorded) if not _is_installed(file)]


def _is_called_by_installed() -> bool:
    """Return whether an installed program or a prompt is at the top, or a command that names no part of this
    package: `python -c COMMAND` is how runners of tests start their workers too."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return __name__.partition(".")[0] not in _command() if file is None else _is_installed(file)


def _command() -> str:
    """Return the command in `python -c COMMAND`; "" if there is none."""
    return sys.orig_argv[sys.orig_argv.index("-c") + 1] if "-c" in sys.orig_argv[:-1] else ""


def code_hash(parts: Sequence[CodeType | Path]) -> str:
    """Return a hash of such code, whatever its order, and of the command in `python -c COMMAND`."""
    lines = sorted(map(_digest, parts))
    return hashlib.sha256("\n".join([*lines, _command()]).encode()).hexdigest()


def imported_names(code: CodeType) -> set[str]:
    """Return the dotted names that a module's code uses, with those of all modules that it imports."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(imported_names, inner))


def is_users(code: CodeType) -> bool:
    """Return whether code is neither installed nor of this package."""
    return not _is_installed(code.co_filename) and not code.co_filename.startswith(_PACKAGE)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "exec":
        code = arguments[0]
        if isinstance(code, CodeType) and code.co_name == "<module>" and not _is_installed(code.co_filename):
            _codes.append(code)
    elif event in _OUTSIDE and not _is_harmless(event, arguments) and _is_called_by_users(sys._getframe(1)):
        _outside_reads.append(f"{event} {arguments[0] if arguments else ''}")


def _is_harmless(event: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether an event belongs to Python's import system, or opens the file of a module or one that is
    only written."""
    if sys._getframe(2).f_code.co_filename.startswith(_IMPORT_SYSTEM):
        return True
    if event != "open":
        return False
    file, mode = arguments[:2]
    is_module = isinstance(file, str) and (
        _is_installed(file) or any(code.co_filename == file for code in [*_codes])
    )
    return is_module or (isinstance(mode, str) and mode[:1] in "wax" and "+" not in mode)


def _is_called_by_users(frame: FrameType | None) -> bool:
    """Return whether a user's code is at work that this package has called or imported. A script of a user's
    that calls this package is not."""
    has_users = False
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            if has_users:
                return True
        else:
            has_users = has_users or is_users(frame.f_code)
        frame = frame.f_back
    return False


@functools.lru_cache(maxsize=100_000)
def _is_installed(file: str) -> bool:
    """Return whether a file belongs to Python or an installed package; also for code without a file."""
    return file.startswith(("<", *installed_folders()))


@functools.cache
def site_folders() -> tuple[Path, ...]:
    """Return the folders of installed packages, of this environment and of others on its path."""
    others = (path for path in sys.path if Path(path).name in _SITE_NAMES)
    folders = dict.fromkeys([*site.getsitepackages(), site.getusersitepackages(), *others])
    return tuple(path for folder in folders if (path := Path(folder)).is_dir())


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of installed packages and of the standard library, each with a slash at its end."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(f"{folder}/" for folder in {*map(sysconfig.get_path, names), *map(str, site_folders())})


def _is_unchanged(file: Path) -> bool:
    try:
        return file.stat().st_ctime < _installed_at[0]
    except (OSError, IndexError):
        return False


def _digest(part: CodeType | Path) -> str:
    content = part.read_bytes() if isinstance(part, Path) else marshal.dumps(part, _STABLE_MARSHAL)
    return hashlib.sha256(content).hexdigest()
