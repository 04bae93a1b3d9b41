"""Weights for others' tools: Llama's layout, or Qwen3's, which is Llama's with norms on queries and keys.

Both turn the pairs (k, k + K/2) and divide scores by sqrt(K), as `models.layers` does, so that no row has to
move: a weight [in, out] is transposed, and the multipliers of `models.mup` go into the tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config.schema.run import DataKind, ModuleConfig
from harness.core import atomic_files
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import local_path
from harness.inspection.load_run import LoadedRun, load_run, prepare_process
from harness.inspection.sample_text import load_run_codec
from harness.records.run.find_checkpoint import find_checkpoint

if TYPE_CHECKING:
    from harness.data.text.tokenizers import Codec

FORMATS = ("hf",)
EXPORTABLE_ATTENTION: dict[str, set[str]] = {
    "mha": set(),
    "gqa": {"kv_heads"},
    "window": {"kv_heads", "window"},
}
"""Attention that has such a layout, alone or in a pattern, and the options that it is understood with."""
NEUTRAL_OPTIONS: dict[str, Any] = {"softcap": None, "sinks": False}
"""Options that change nothing where they have this value."""
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


def export(where: Path | str, export_format: str, folder: Path | str) -> Path:
    """Writes RUN[@STEP] into a new folder: weights in float32, config, the tokenizer if it is a file.

    Raises UserError for a model that has no such layout, and for a folder that holds something.
    """
    if export_format not in FORMATS:
        raise UserError(f"--to {export_format}: no such format; {did_you_mean(export_format, FORMATS)}")
    folder = Path(local_path(folder, "write to a folder here, and copy that", f"--to {export_format} "))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty: name a new folder")
    checkpoint = find_checkpoint(where)
    if checkpoint.config.data.kind is DataKind.images:
        raise UserError(f"{where} is a model of images, which has no such layout; text alone is exported")
    prepare_process(checkpoint.config)
    run, codec = load_run(checkpoint), load_run_codec(checkpoint)
    config = hf_config(run, codec)
    tensors = hf_tensors(run, run.weights(checkpoint.step))
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder, config, tensors)
    _write_tokenizer(folder, run, codec)
    return folder


def hf_config(run: LoadedRun, codec: Codec) -> dict[str, Any]:
    """What `transformers` reads as config.json. Raises UserError for what it has no model for."""
    config, shape = run.config.model, run.model.shape
    windows = _layer_windows(config.attention, shape.layers)
    _check_exportable(run, windows)
    kv_heads = _single_value(
        {run.model.param_specs[f"layers.{layer}.attention.key"].shape[1] for layer in range(shape.layers)},
        "kv_heads",
    )
    kind = {"qwen3": "Qwen3ForCausalLM"} if config.qk_norm else {"llama": "LlamaForCausalLM"}
    ((model_type, architecture),) = kind.items()
    return {
        "architectures": [architecture],
        "model_type": model_type,
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
    """By its name there, from weights by canonical path. Raises UserError for one that has no place."""
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
        if path not in ("embedding", "head", "norm.gain"):
            tensors[_hf_name(path)] = _to_torch_layout(path, weight)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def _hf_name(path: str) -> str:
    kind, layer, leaf = path.split(".", 2) if path.count(".") > 1 else ("", "", path)
    if kind != "layers" or leaf not in LAYER_NAMES:
        raise _unsupported(path)
    return f"model.layers.{layer}.{LAYER_NAMES[leaf]}"


def _to_torch_layout(path: str, weight: np.ndarray) -> np.ndarray:
    """[out, in], as torch multiplies; a gain as it is."""
    if weight.ndim == 1:
        return weight
    last = weight.shape[-1] if path.endswith(".output") else math.prod(weight.shape[1:])
    return weight.reshape(-1, last).T


def _layer_windows(attention: ModuleConfig, layers: int) -> list[int | None]:
    """The window of each layer, None where it sees all."""
    if attention.name != "pattern":
        return [_attention_window(attention.name, attention.options, "model.attention")] * layers
    cycle = [
        _attention_window(
            member["name"], member.get("options") or {}, f"model.attention.options.cycle[{position}]"
        )
        for position, member in enumerate(attention.options["cycle"])
    ]
    return [cycle[layer % len(cycle)] for layer in range(layers)]


def _attention_window(name: str, options: Mapping[str, Any], key: str) -> int | None:
    if name not in EXPORTABLE_ATTENTION:
        raise _unsupported(f"{key}.name={name}")
    changed = {
        option
        for option, value in options.items()
        if option not in NEUTRAL_OPTIONS or value != NEUTRAL_OPTIONS[option]
    }
    if unsupported := changed - EXPORTABLE_ATTENTION[name]:
        raise _unsupported(f"{key}.options.{min(unsupported)}")
    return options.get("window")


def _single_value(values: set[int], label: str) -> int:
    """The value that all layers share: these layouts have room for one."""
    if len(values) > 1:
        raise _unsupported(f"model.attention.options.cycle with several {label} ({sorted(values)})")
    return values.pop()


def _check_exportable(run: LoadedRun, windows: list[int | None]) -> None:
    config, shape = run.config.model, run.model.shape
    if run.config.data.mask_documents:
        raise _unsupported("data.mask_documents=true")
    if config.feedforward.name != "swiglu" or config.feedforward.options:
        raise _unsupported(f"model.feedforward.name={config.feedforward.name}")
    if not config.qk_norm and any(windows):
        raise UserError(
            f"model.attention.name={config.attention.name} with model.qk_norm=false: Llama's layout has no "
            "windows; with model.qk_norm=true it is Qwen3's, which has"
        )
    if not config.qk_norm and shape.width % shape.heads:
        raise UserError(
            f"model.width={shape.width} is no multiple of model.heads={shape.heads}, which Llama's layout "
            "asks for; with model.qk_norm=true it is Qwen3's, which does not"
        )


def _unsupported(setting: str) -> UserError:
    return UserError(
        f"{setting} has no place in the layouts of Llama and Qwen3: what can be exported is attention by "
        f"{', '.join(EXPORTABLE_ATTENTION)}, with swiglu"
    )


def _sliding_window_config(windows: list[int | None]) -> dict[str, Any]:
    if not any(windows):
        return {}
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    window = _single_value({window for window in windows if window}, "windows")
    return {
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": 0,
        "layer_types": kinds,
    }


def _relative_width(run: LoadedRun) -> float:
    from harness.models.mup import relative_width

    return relative_width(run.config.model, run.model.shape.width)


def _shares_embedding(run: LoadedRun) -> bool:
    """One table no longer serves both ends once the multipliers are in it."""
    return run.config.model.tie_embeddings and _relative_width(run) == 1


def _write_model(folder: Path, config: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """The weights last: a folder that has them is whole but for its tokenizer."""
    from safetensors.numpy import save

    atomic_files.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    atomic_files.write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def _write_tokenizer(folder: Path, run: LoadedRun, codec: Codec) -> None:
    """A `tokenizers` file as it is; bytes have none."""
    from tokenizers import Tokenizer

    from harness.data.text.tokenizers import SHIPPED_TOKENIZER

    name = run.config.data.tokenizer
    if name == "byte":
        return
    content = (SHIPPED_TOKENIZER if name == "bpe512" else Path(name).expanduser()).read_bytes()
    end = Tokenizer.from_buffer(content).id_to_token(codec.end_token)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": run.config.data.sequence_length,
    }
    atomic_files.write_bytes(folder / "tokenizer.json", content)
    atomic_files.write_text(folder / "tokenizer_config.json", json.dumps(described, indent=2) + "\n")
