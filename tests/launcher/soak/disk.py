"""A small disk of its own for a sweep, which can really be full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SIZE = 128 << 20


class Disk:
    """A tmpfs at `folder`, where this user may mount one; else writes are refused by tests' own fsync."""

    def __init__(self, folder: Path, flag: Path) -> None:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "soak", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.folder, self._flag, self.real = folder, flag, done.returncode == 0
        if not self.real:
            print(f"full disk: injected as ENOSPC of fsync, since mount says: {done.stderr.strip()}")

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """To the last byte."""
        if not self.real:
            self._flag.touch()
            return
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        for file in (self._flag, self._ballast):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        if self.real and os.path.ismount(self.folder):
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
