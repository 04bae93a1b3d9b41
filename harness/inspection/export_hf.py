"""Export to Hugging Face formats: Llama, or with QK norm Qwen3.

Both rotate the pairs (k, k + K/2) and divide scores by sqrt(K), as `models.layers` does, so rows keep their
order. Weights [in, out] are transposed, and the multipliers of `models.mup` go into the embedding tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.schema.run import ModelConfig, ModuleConfig
from harness.core import atomic_files
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import local_path
from harness.inspection.load_run import LoadedRun, load_run, prepare_process
from harness.inspection.sample_text import load_run_codec
from harness.records.run.find_checkpoint import find_checkpoint

if TYPE_CHECKING:
    from harness.data.codecs.codec import Codec

FORMATS = ("hf",)
EXPORTABLE_ATTENTION: dict[str, set[str]] = {
    "mha": set(),
    "gqa": {"kv_heads"},
    "window": {"kv_heads", "window"},
}
"""Attention mechanisms that can be exported, alone or in a pattern, with their allowed options."""
NEUTRAL_OPTIONS: dict[str, Any] = {"softcap": None, "sinks": False}
"""Options that are allowed with this value, which has no effect."""
LAYER_NAMES = {
    "attention_norm.gain": "input_layernorm.weight",
    "attention.query": "self_attn.q_proj.weight",
    "attention.key": "self_attn.k_proj.weight",
    "attention.value": "self_attn.v_proj.weight",
    "attention.output": "self_attn.o_proj.weight",
    "attention.query_norm.gain": "self_attn.q_norm.weight",
    "attention.key_norm.gain": "self_attn.k_norm.weight",
    "feedforward_norm.gain": "post_attention_layernorm.weight",
    "feedforward.gate": "mlp.gate_proj.weight",
    "feedforward.up": "mlp.up_proj.weight",
    "feedforward.down": "mlp.down_proj.weight",
}


def export(where: Path | str, export_format: str, folder: Path | str, *, trust: bool = False) -> Path:
    """Write RUN[@STEP] into a new folder: float32 weights, config, and the tokenizer if it is a file.

    Raises UserError for a model that the format does not have, a folder that is not empty, and without
    `trust` for a run that imports modules with which this user has not trained it.
    """
    if export_format not in FORMATS:
        raise UserError(f"--to {export_format}: no such format; {did_you_mean(export_format, FORMATS)}")
    folder = Path(local_path(folder, "write to a folder here, and copy that", f"--to {export_format} "))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty. Name a new folder.")
    checkpoint = find_checkpoint(where)
    prepare_process(checkpoint, trust=trust)
    from safetensors.numpy import save

    run = load_run(checkpoint)
    if not run.exports:
        raise UserError(f"{where} is a run of a {run.noun}. Only text models can be exported.")
    codec = load_run_codec(checkpoint)
    config = hf_config(run, codec)
    tensors = hf_tensors(run, run.weights(checkpoint.step))
    folder.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    atomic_files.write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    _write_tokenizer(folder, run, codec)
    return folder


def hf_config(run: LoadedRun, codec: Codec) -> dict[str, Any]:
    """Return the config.json for `transformers`. Raises UserError for a model that it does not have."""
    config, shape = run.config.model, run.model.shape
    windows = _layer_windows(config.attention, shape.layers)
    _check_exportable(run, windows)
    keys = [run.model.param_specs[f"layers.{layer}.attention.key"] for layer in range(shape.layers)]
    kv_heads = _single_value({spec.shape[1] for spec in keys}, "kv_heads")
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if config.qk_norm else "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": run.config.data.sequence_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": _shares_embedding(run),
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": codec.end_token,
        "eos_token_id": codec.end_token,
        "dtype": "float32",
        **_sliding_window_config(windows),
    }


def hf_tensors(run: LoadedRun, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert weights by canonical path to tensors by Hugging Face name. Raises UserError."""
    config, factor = run.config.model, math.sqrt(_relative_width(run))
    table = weights["embedding"]
    tensors = {
        "model.embed_tokens.weight": table * np.float32(factor),
        "model.norm.weight": weights["norm.gain"],
    }
    if not _shares_embedding(run):
        head = table if config.tie_embeddings else weights["head"]
        tensors["lm_head.weight"] = head / np.float32(factor)
    for path, weight in weights.items():
        kind, layer, leaf = path.split(".", 2) if path.count(".") > 1 else ("", "", path)
        if kind == "layers" and leaf in LAYER_NAMES:
            tensors[f"model.layers.{layer}.{LAYER_NAMES[leaf]}"] = _to_torch_layout(path, weight)
        elif path not in ("embedding", "head", "norm.gain"):
            raise _unsupported(path)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def _to_torch_layout(path: str, weight: np.ndarray) -> np.ndarray:
    """Return the weight as [out, in], the order of torch; a gain [D] stays as it is."""
    if weight.ndim == 1:
        return weight
    last = weight.shape[-1] if path.endswith(".output") else math.prod(weight.shape[1:])
    return weight.reshape(-1, last).T


def _layer_windows(attention: ModuleConfig, layers: int) -> list[int | None]:
    """Return the window of each layer; None for full attention."""
    if attention.name != "pattern":
        return [_attention_window(attention.name, attention.options, "model.attention")] * layers
    cycle = [
        _attention_window(node["name"], node.get("options") or {}, f"model.attention.options.cycle[{index}]")
        for index, node in enumerate(attention.options["cycle"])
    ]
    return [cycle[layer % len(cycle)] for layer in range(layers)]


def _attention_window(name: str, options: Mapping[str, Any], key: str) -> int | None:
    if name not in EXPORTABLE_ATTENTION:
        raise _unsupported(f"{key}.name={name}")
    neutral = NEUTRAL_OPTIONS.items()
    changed = {option for option, value in options.items() if (option, value) not in neutral}
    if unknown_options := changed - EXPORTABLE_ATTENTION[name]:
        raise _unsupported(f"{key}.options.{min(unknown_options)}")
    return options.get("window")


def _single_value(values: set[int], label: str) -> int:
    """Return the one value that all layers share. Raises UserError if there are several."""
    if len(values) > 1:
        raise _unsupported(f"model.attention.options.cycle with several {label} ({sorted(values)})")
    return values.pop()


def _check_exportable(run: LoadedRun, windows: list[int | None]) -> None:
    config, shape = run.config.model, run.model.shape
    if run.config.data.mask_documents:
        raise _unsupported("data.mask_documents=true")
    if config.logit_softcap is not None:
        raise _unsupported(f"model.logit_softcap={config.logit_softcap}")
    for node in ("block", "norm", "position", "embedding", "head"):
        if getattr(config, node) != getattr(ModelConfig(), node):
            raise _unsupported(f"model.{node}.name={getattr(config, node).name}")
    if config.feedforward.name != "swiglu" or config.feedforward.options:
        raise _unsupported(f"model.feedforward.name={config.feedforward.name}")
    if not config.qk_norm and any(windows):
        raise UserError(
            f"model.attention.name={config.attention.name} with model.qk_norm=false: Llama has no "
            "windows. Train with model.qk_norm=true: Qwen3 has windows."
        )
    if not config.qk_norm and shape.width % shape.heads:
        raise UserError(
            f"model.width={shape.width} is not a multiple of model.heads={shape.heads}, as Llama requires. "
            "Train with model.qk_norm=true: Qwen3 has no such rule."
        )


def _unsupported(setting: str) -> UserError:
    return UserError(
        f"{setting} does not exist in Llama and Qwen3. Only plain decoders with swiglu and the attention "
        f"{', '.join(EXPORTABLE_ATTENTION)} can be exported."
    )


def _sliding_window_config(windows: list[int | None]) -> dict[str, Any]:
    if not any(windows):
        return {}
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    window = _single_value({window for window in windows if window}, "windows")
    layers = {"max_window_layers": 0, "layer_types": kinds}
    return {"use_sliding_window": True, "sliding_window": window, **layers}


def _relative_width(run: LoadedRun) -> float:
    from harness.models.mup import relative_width

    return relative_width(run.config.model, run.model.shape.width)


def _shares_embedding(run: LoadedRun) -> bool:
    """Return whether one table serves as embedding and head: not if muP multipliers differ between them."""
    return run.config.model.tie_embeddings and _relative_width(run) == 1


def _write_tokenizer(folder: Path, run: LoadedRun, codec: Codec) -> None:
    """Write the `tokenizers` file as training used it, and describe it; the byte tokenizer has none. As in
    training, a special token that a text spells out is text."""
    from harness.data.codecs.tokenizer_file import FileCodec

    if not isinstance(codec, FileCodec):
        return
    assert codec.end_token is not None
    end = codec.token_name(codec.end_token)
    description = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "add_bos_token": False,
        "add_eos_token": False,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": run.config.data.sequence_length,
    }
    atomic_files.write_text(folder / "tokenizer.json", codec.to_json() + "\n")
    atomic_files.write_text(folder / "tokenizer_config.json", json.dumps(description, indent=2) + "\n")
