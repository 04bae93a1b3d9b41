"""Archive of a finished sweep for the gallery: `python -m docs.site.pack_sweep SWEEP FILE.tar.gz`.

It holds what a comparison reads, and neither checkpoints nor logs. Its configs name the folder of the
sweep: train it into a relative one.
"""

from __future__ import annotations

import gzip
import sys
import tarfile
from pathlib import Path

LEFT_OUT = (
    "report.html",
    "comparison.json",
    "log.txt",
    "driver.lock",
    "worker.lock",
    "workers",
    ".hydra",
    "state",
)


def pack(sweep: Path, archive: Path) -> None:
    """Write the archive. Its bytes depend on the files alone. Files of one name lie side by side, where they
    compress best."""
    files = [path for path in sweep.rglob("*") if path.is_file() and _is_read(path.relative_to(sweep))]
    with (
        gzip.GzipFile(archive, "wb", compresslevel=9, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as packed,
    ):
        for path in sorted(files, key=lambda path: (path.name, path)):
            packed.add(path, Path(sweep.name) / path.relative_to(sweep), filter=_anonymous)


def _is_read(path: Path) -> bool:
    return not {*path.parts} & {*LEFT_OUT} and (
        "checkpoints" not in path.parts or path.name.endswith(".manifest.json")
    )


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
