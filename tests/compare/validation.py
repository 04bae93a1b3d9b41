"""Public logs beside the repository, for tests that skip visibly where they are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

FOLDER = Path(__file__).parents[2].parent / "shared" / "validation"


def _read(name: str) -> pl.DataFrame:
    path = FOLDER / name
    if not path.exists():
        reason = f"../shared/validation/{name} is not here: the check on real data was not made"
        print(reason)
        pytest.skip(reason)
    return pl.read_csv(path)


def chinchilla() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, tokens (FLOP / 6N) and losses of the figure's points, without the 5 highest losses."""
    frame = _read("chinchilla/svg_extracted_data.csv").sort("loss").head(-5)
    params, flop = frame["Model Size"].to_numpy(), frame["Training FLOP"].to_numpy()
    return params, flop / (6 * params), frame["loss"].to_numpy()


def null_records(at_least: int = 10) -> list[np.ndarray]:
    """Validation curves of one config run many times, one array (runs, evaluations) a record.

    Runs of the commonest length and set of steps; values that vary at the end.
    """
    frame = _read("modded_nanogpt/val_curves.csv").filter(pl.all_horizontal(pl.all().is_not_null()))
    found = []
    for record in frame.sort("track", "record").partition_by("track", "record", maintain_order=True):
        curves: dict[tuple, list[np.ndarray]] = {}
        for run in record.sort("file", "run", "step").partition_by("file", "run", maintain_order=True):
            steps = tuple(run["step"].to_list())
            if steps[-1] >= run["total_steps"][-1]:
                curves.setdefault(steps, []).append(run["val_loss"].to_numpy())
        best = max(curves.values(), key=len, default=[])
        if len(best) >= at_least:
            found.append(np.array(best))
    return found


def default_optimizer(method: str):
    """scipy's optimizer as it comes, in plain coordinates: it reports success wherever it stops."""
    from scipy import optimize

    from harness.compare.stats.scaling_law import OBJECTIVE_SCALE

    params, tokens, _ = chinchilla()
    to_centred = np.eye(5)
    to_centred[0, 3], to_centred[1, 4] = -np.log(params).mean(), -np.log(tokens).mean()

    def run(function, start):
        def plain(raw):
            value, gradient = function(to_centred @ raw)
            return value / OBJECTIVE_SCALE, to_centred.T @ gradient / OBJECTIVE_SCALE

        raw = np.linalg.solve(to_centred, start)
        return to_centred @ optimize.minimize(plain, raw, jac=True, method=method).x

    return run
