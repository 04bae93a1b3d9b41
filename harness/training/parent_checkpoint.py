"""Parent checkpoint of a fine-tuned run: found, and checked against the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.pair_check import describe_differences
from harness.config.run_identity import config_difference
from harness.config.schema.finetune import FinetuneMethod
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.core.hashing import hash_json, is_covered_by
from harness.data.codecs.tokenizer_file import load_codec
from harness.models import Model, build, image_size
from harness.models.mup import relative_width
from harness.records.run.find_checkpoint import Checkpoint, RunRef, find_checkpoint
from harness.records.run.provenance import Facts
from harness.records.run.status import State, read_status


def find_parent(config: Config, model: Model) -> dict[str, Any] | None:
    """Return the record of the parent checkpoint for `Facts.base`; None for random initial weights. Raises
    UserError if there is no such checkpoint, or if it does not fit the model or the tokenizer."""
    if config.finetune.method is FinetuneMethod.none:
        return None
    parent = _open_parent(config)
    _check_tokenizer(config, parent)
    _check_shapes(config, model, parent)
    _check_computation(config, model, parent)
    return {
        "run": str(parent.run.path.resolve()),
        "name": f"{parent.sweep.path.name}/{parent.name}",
        "step": parent.step,
        "identity": parent.provenance.identity,
        "checksum": hash_json(parent.manifest.files),
    }


def _open_parent(config: Config) -> Checkpoint:
    """Find the parent of `finetune.parent`: a finished run, or one of its checkpoints by step."""
    where = config.finetune.parent
    if not where:
        raise UserError(
            f"finetune.method={config.finetune.method.value} starts from a checkpoint, but finetune.parent "
            "is not set. Set it to the directory of a run, RUN or RUN@STEP."
        )
    try:
        parent = find_checkpoint(where, trust_memory=True)  # read to the last byte when it is loaded
    except UserError as error:
        raise UserError(f"finetune.parent={where}: {error}. Train the parent first.") from error
    state = read_status(parent.run).state
    if Path(where) == parent.run.path and state is not State.finished:
        raise UserError(
            f"finetune.parent={where} is {state.value}, not finished. Let it finish, or choose one of its "
            f"checkpoints, such as {where}@{parent.step}."
        )
    return parent


def _check_tokenizer(config: Config, parent: Checkpoint) -> None:
    name, parent_name = config.data.tokenizer, parent.config.data.tokenizer
    codec, parent_vocabulary = load_codec(config.data), parent.provenance.facts.shape["vocabulary"]
    equal = codec.vocabulary == parent_vocabulary
    ends = config.data.end_token, parent.config.data.end_token  # null unless the tokenizer is not here
    is_same = name == parent_name and ends[0] == ends[1]
    if not equal or (not is_same and codec.fingerprint != load_codec(parent.config.data).fingerprint):
        raise UserError(
            f"data.tokenizer={name} ({codec.vocabulary} tokens) is not the tokenizer of finetune.parent="
            f"{config.finetune.parent}, {parent_name} ({parent_vocabulary} tokens). "
            f"Set data.tokenizer={parent_name}."
        )


def _check_shapes(config: Config, model: Model, parent: Checkpoint) -> None:
    """Raise UserError unless both models have the same parameters with the same shapes. Embedding and head
    may have other numbers of rows that are no token."""
    shapes = {path: list(spec.shape) for path, spec in model.param_specs.items()}
    parent_shapes = {
        path: shapes[path] if path in model.table_paths and shape[1:] == shapes[path][1:] else shape
        for path, shape in parent.provenance.facts.paths.items()
    }
    differing = [path for path in [*shapes, *parent_shapes] if shapes.get(path) != parent_shapes.get(path)]
    if not differing:
        return
    path = differing[0]
    all_differences = config_difference(parent.config, config)
    sizes = ("model", "scale.parameters", "data.sequence_length")
    differences = {key: pair for key, pair in all_differences.items() if is_covered_by(key, [*sizes])}
    because = f" (the configs differ in {describe_differences(differences)})" if differences else ""
    raise UserError(
        f"finetune.parent={config.finetune.parent} has another architecture: {path} is "
        f"{parent_shapes.get(path, 'absent')} there and {shapes.get(path, 'absent')} here{because}. "
        "Give this run the parent's shape."
    )


SIZE_KEYS = (
    "model.match", "model.width", "model.layers", "model.heads", "model.ffn", "model.base_width",
    "model.vocabulary_multiple",
)  # fmt: skip
"""Keys checked through shapes and learning rates. Only the ratio of base_width to width matters."""


def _check_computation(config: Config, model: Model, parent: Checkpoint) -> None:
    """Raise UserError for other model settings that differ and are not in variant.touches."""
    allowed = [*SIZE_KEYS, *config.variant.touches]
    differences = {
        key: pair
        for key, pair in config_difference(parent.config, config).items()
        if is_covered_by(key, ["model"]) and not is_covered_by(key, allowed)
    }
    parent_model = rebuild_checkpoint_model(parent)
    parent_width = relative_width(parent_model.spec.config, parent_model.shape.width)
    if parent_width != relative_width(model.spec.config, model.shape.width):
        differences["model.base_width"] = (parent.config.model.base_width, config.model.base_width)
    if differences:
        raise UserError(
            f"finetune.parent={config.finetune.parent} has another model: its config and this one differ in "
            f"{describe_differences(differences)}. Make them equal, or (except base_width) declare them in "
            "variant.touches."
        )


def rebuild_checkpoint_model(parent: RunRef) -> Model:
    """Rebuild the model of a checkpoint. Raises UserError if this code builds other shapes."""
    facts = parent.provenance.facts
    model = rebuild_model(parent.config, facts)
    shapes = {path: list(spec.shape) for path, spec in model.param_specs.items()}
    if shapes != facts.paths:
        path = next(path for path in [*facts.paths, *shapes] if shapes.get(path) != facts.paths.get(path))
        raise UserError(
            f"{parent.run.path}: {path} was trained with shape {facts.paths.get(path)}, but this "
            f"code gives it {shapes.get(path)}. Use the code that trained the run."
        )
    return model


def rebuild_model(config: Config, facts: Facts) -> Model:
    """Build the model of a run from its config and the facts of its description."""
    vocabulary = facts.shape["vocabulary"]
    if facts.is_known and facts.table_rows == vocabulary:
        # A run from before `model.vocabulary_multiple` has no rows past the vocabulary.
        config = replace(config, model=replace(config.model, vocabulary_multiple=1))
    row = tuple(facts.row) or None
    return build(config, vocabulary, facts.end_token, image_size(facts.shape), row, facts.row_dtype)
