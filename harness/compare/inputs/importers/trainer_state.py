"""Logs of the Hugging Face Trainer: `trainer_state.json` of a run or of its checkpoints."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.compare.inputs.importers.imported_run import ImportedRun, frame_of_rows
from harness.core.errors import UserError

KIND = "Hugging Face trainer_state.json"
FILE_NAME = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def read_trainer_states(files: Iterable[Path]) -> list[ImportedRun]:
    """Read one log a run: of the files of a run and its checkpoints, the one with the most steps, which holds
    the history of the others."""
    by_run: dict[Path, list[tuple[int, ImportedRun]]] = defaultdict(list)
    for file in files:
        folder = file.parent.parent if _CHECKPOINT.fullmatch(file.parent.name) else file.parent
        state = _read_state(file)
        history = [row for row in state["log_history"] if isinstance(row, dict)]
        step = state.get("global_step")
        run = ImportedRun(
            str(file), folder.as_posix(), KIND, frame_of_rows(history), {"run_name": folder.name}
        )
        by_run[folder].append((step if isinstance(step, int) else 0, run))
    return [max(states, key=lambda state: state[0])[1] for states in by_run.values()]


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise UserError(f"{file}: has no list 'log_history', as a file of the Hugging Face Trainer has")
    return state
