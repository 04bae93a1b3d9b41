"""Folder in which a reader gives the commands of the documents: a checkout, and the files that they show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cli.support import clean_env
from tests.docs.documents import DOCUMENTS, FENCE, ROOT

FILE = re.compile(r"`([\w./-]+\.(?:yaml|py|csv))`")
LOG_HEADER = "variant,scale,seed,step,tokens,loss\n"


def shown_files() -> Iterator[tuple[str, str, str]]:
    """Yield (document, file, text) of each YAML, Python and CSV block, named by the last line before it."""
    for document in DOCUMENTS:
        text = document.read_text()
        for block in FENCE.finditer(text):
            if block[1] in ("yaml", "python", "csv"):
                files = FILE.findall(text[: block.start()].rstrip().rpartition("\n")[2])
                yield str(document.relative_to(ROOT)), files[-1] if files else "", block[2]


def make_checkout(folder: Path) -> Path:
    """Make the folder: its own conf/ and experiments/, links to code and tests, every file as it is shown."""
    for name in ("conf", "experiments"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("harness", "hydra_plugins", "docs", "tests", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    for _, file, text in shown_files():
        if file:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    return folder


def add_logs(folder: Path) -> None:
    """Add the logs of another trainer that the README names."""
    for name, variant, worse in (("a", "mha", 0.0), ("b", "short", 0.1)):
        rows = [
            f"{variant},xs,{seed},{step},{step * 512},{5 + worse - step / 100 + seed / 50}\n"
            for seed in range(3)
            for step in (0, 60, 120)
        ]
        (folder / f"{name}.csv").write_text(LOG_HEADER + "".join(rows))


def run_there(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command `harness` of the checkout, as it is printed."""
    code = "import sys; from harness.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=folder,
        env=clean_env(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
