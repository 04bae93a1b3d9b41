"""`make test-gpu`: a 124M pair on one accelerator, in at most five minutes. Writes docs/gpu.md.

`python -m tests.gpu --rehearse` runs the same commands with a tiny model on the CPU and writes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness.estimate.known_chips import find_chip
from tests.gpu.accelerator import Accelerator, NoAccelerator, find_accelerator
from tests.gpu.page import render
from tests.gpu.proofs import Proofs, Row

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"
PAIR = ("size=124m", "compute.kernels=fused", "scale.batch=64", "data.sequence_length=1024")
REHEARSAL = ("size=xs", "scale.batch=4", "data.sequence_length=128", "cluster=local")


def main() -> int:
    """Print the table and write the page; 1 if a proof fails, 0 without an accelerator."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    parser.add_argument("--rehearse", action="store_true", help="a tiny model on the CPU; writes nothing")
    rehearse = parser.parse_args().rehearse
    try:
        accelerator = None if rehearse else find_accelerator()
    except NoAccelerator as reason:
        print(f"skipped: {reason}. The proof needs one GPU or TPU.")
        return 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = _prove(accelerator, Path(folder))
    text = render(accelerator, rows, time.perf_counter() - start)
    print(text)
    if accelerator is None:
        return 0
    PAGE.write_text(text)
    return int(any(row.holds is False for row in rows))


def _prove(accelerator: Accelerator | None, runs: Path) -> list[Row]:
    pair = [*PAIR, *accelerator.overrides] if accelerator else list(REHEARSAL)
    values = dict(override.split("=", 1) for override in pair)
    tokens = int(values["scale.batch"]) * int(values["data.sequence_length"])
    chip = accelerator.chip if accelerator else find_chip("H100-80G")[0]
    proofs = Proofs(pair, values["size"], runs, tokens, chip)
    return [proofs.train_pair(), *proofs.time_and_memory(), proofs.resume_bitwise(), proofs.two_lanes()]


if __name__ == "__main__":
    raise SystemExit(main())
