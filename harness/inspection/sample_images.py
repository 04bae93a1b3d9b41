"""Images sampled from a finished run: a grid with a column per label."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from harness.core.atomic_files import write_bytes
from harness.core.errors import UserError
from harness.core.paths import local_path
from harness.core.png import encode_png, image_grid
from harness.inspection.load_run import load_run, prepare_process
from harness.records.run.find_checkpoint import find_checkpoint

BATCH, ZOOM = 32, 2


def sample_images(
    where: Path | str,
    to: Path | str | None = None,
    per_label: int = 4,
    guidance: float = 2.0,
    steps: int = 50,
    seed: int = 0,
    *,
    trust: bool = False,
) -> Path:
    """Write a grid of `per_label` rows as a PNG and return its path.

    The same call on the same machine gives the same pixels. Raises UserError for a number out of range, a
    missing checkpoint, or a text model, and without `trust` for unknown modules.
    """
    _check_options(per_label, guidance, steps, seed)
    to = to and local_path(to, "write a file here, and copy that", "--to ")
    checkpoint = find_checkpoint(where)
    prepare_process(checkpoint, trust=trust)
    import jax

    from harness.models.families.abilities import DrawsImages
    from harness.training.output.image_samples import sample_requests
    from harness.training.programs.evaluate import make_sample, map_batches

    run = load_run(checkpoint)
    model = run.model
    if not isinstance(model, DrawsImages):
        raise UserError(
            f"{where} is a {run.noun}, which draws no images. Use `harness sample` without image options."
        )
    program, params = jax.jit(make_sample(model, steps)), run.stored_weights(checkpoint.step)
    labels = model.shape.vocabulary - 1
    rows_NR = sample_requests(model, np.tile(np.arange(labels), per_label), seed)
    images_NHWC = map_batches(lambda rows_BR: program(params, rows_BR, guidance), rows_NR, BATCH)
    path = Path(to or f"samples_{checkpoint.step}.png")
    write_bytes(path, encode_png(image_grid(images_NHWC, labels, ZOOM)))
    return path


def _check_options(per_label: int, guidance: float, steps: int, seed: int) -> None:
    for name, value, minimum in (("per-label", per_label, 1), ("steps", steps, 1), ("seed", seed, 0)):
        if value < minimum:
            raise UserError(f"--{name}={value}: give {minimum} or more")
    if not math.isfinite(guidance):
        raise UserError(
            f"--guidance={guidance}: give a number, 1 for no guidance or 2 to emphasise the label"
        )
