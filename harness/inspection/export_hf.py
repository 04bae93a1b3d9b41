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
from harness.inspection.load_run import Subject, open_subject, prepare_process
from harness.inspection.sample_text import codec_of
from harness.records.run.find_checkpoint import find_checkpoint

if TYPE_CHECKING:
    from harness.data.text.tokenizers import Codec

FORMATS = ("hf",)
KNOWN: dict[str, set[str]] = {"mha": set(), "gqa": {"kv_heads"}, "window": {"kv_heads", "window"}}
"""Attention that has such a layout, alone or in a pattern, and the options that it is understood with."""
OFF: dict[str, Any] = {"softcap": None, "sinks": False}
"""Options that change nothing where they have this value."""
LAYER = {
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


def export(where: Path | str, form: str, folder: Path | str) -> Path:
    """Writes RUN[@STEP] into a new folder: weights in float32, config, the tokenizer if it is a file.

    Raises UserError for a model that has no such layout, and for a folder that holds something.
    """
    if form not in FORMATS:
        raise UserError(f"--to {form}: no such format; {did_you_mean(form, FORMATS)}")
    folder = Path(local_path(folder, "write to a folder here, and copy that", f"--to {form} "))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and not empty: name a new folder")
    checkpoint = find_checkpoint(where)
    if checkpoint.config.data.kind is DataKind.images:
        raise UserError(f"{where} is a model of images, which has no such layout; text alone is exported")
    prepare_process(checkpoint.config)
    subject, codec = open_subject(checkpoint), codec_of(checkpoint)
    config = hf_config(subject, codec)
    tensors = hf_tensors(subject, subject.weights(checkpoint.step))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, config, tensors)
    _write_tokenizer(folder, subject, codec)
    return folder


def hf_config(subject: Subject, codec: Codec) -> dict[str, Any]:
    """What `transformers` reads as config.json. Raises UserError for what it has no model for."""
    config, shape = subject.config.model, subject.model.shape
    windows = _windows(config.attention, shape.layers)
    _check(subject, windows)
    kv_heads = _one(
        {
            subject.model.param_specs[f"layers.{layer}.attention.key"].shape[1]
            for layer in range(shape.layers)
        },
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
        "max_position_embeddings": subject.config.data.sequence_length,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": _tied(subject),
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": codec.end_token,
        "eos_token_id": codec.end_token,
        "dtype": "float32",
        **_sliding(windows),
    }


def hf_tensors(subject: Subject, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By its name there, from weights by canonical path. Raises UserError for one that has no place."""
    config, factor = subject.config.model, math.sqrt(_relative(subject))
    table = weights["embedding"]
    tensors = {
        "model.embed_tokens.weight": table * np.float32(factor),
        "model.norm.weight": weights["norm.gain"],
    }
    if not _tied(subject):
        head = table if config.tie_embeddings else weights["head"]
        tensors["lm_head.weight"] = head / np.float32(factor)
    for path, weight in weights.items():
        if path not in ("embedding", "head", "norm.gain"):
            tensors[_name(path)] = _outwards(path, weight)
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def _name(path: str) -> str:
    kind, layer, leaf = path.split(".", 2) if path.count(".") > 1 else ("", "", path)
    if kind != "layers" or leaf not in LAYER:
        raise _no_place(path)
    return f"model.layers.{layer}.{LAYER[leaf]}"


def _outwards(path: str, weight: np.ndarray) -> np.ndarray:
    """[out, in], as torch multiplies; a gain as it is."""
    if weight.ndim == 1:
        return weight
    last = weight.shape[-1] if path.endswith(".output") else math.prod(weight.shape[1:])
    return weight.reshape(-1, last).T


def _windows(attention: ModuleConfig, layers: int) -> list[int | None]:
    """The window of each layer, None where it sees all."""
    if attention.name != "pattern":
        return [_window(attention.name, attention.options, "model.attention")] * layers
    cycle = [
        _window(each["name"], each.get("options") or {}, f"model.attention.options.cycle[{position}]")
        for position, each in enumerate(attention.options["cycle"])
    ]
    return [cycle[layer % len(cycle)] for layer in range(layers)]


def _window(name: str, options: Mapping[str, Any], key: str) -> int | None:
    if name not in KNOWN:
        raise _no_place(f"{key}.name={name}")
    given = {option for option, value in options.items() if option not in OFF or value != OFF[option]}
    if unknown := given - KNOWN[name]:
        raise _no_place(f"{key}.options.{min(unknown)}")
    return options.get("window")


def _one(values: set[int], what: str) -> int:
    """The value that all layers share: these layouts have room for one."""
    if len(values) > 1:
        raise _no_place(f"model.attention.options.cycle with several {what} ({sorted(values)})")
    return values.pop()


def _check(subject: Subject, windows: list[int | None]) -> None:
    config, shape = subject.config.model, subject.model.shape
    if subject.config.data.mask_documents:
        raise _no_place("data.mask_documents=true")
    if config.feedforward.name != "swiglu" or config.feedforward.options:
        raise _no_place(f"model.feedforward.name={config.feedforward.name}")
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


def _no_place(what: str) -> UserError:
    return UserError(
        f"{what} has no place in the layouts of Llama and Qwen3: what can be exported is attention by "
        f"{', '.join(KNOWN)}, with swiglu"
    )


def _sliding(windows: list[int | None]) -> dict[str, Any]:
    if not any(windows):
        return {}
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    window = _one({window for window in windows if window}, "windows")
    return {
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": 0,
        "layer_types": kinds,
    }


def _relative(subject: Subject) -> float:
    from harness.models.mup import relative_width

    return relative_width(subject.config.model, subject.model.shape.width)


def _tied(subject: Subject) -> bool:
    """One table no longer serves both ends once the multipliers are in it."""
    return subject.config.model.tie_embeddings and _relative(subject) == 1


def _write(folder: Path, config: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """The weights last: a folder that has them is whole but for its tokenizer."""
    from safetensors.numpy import save

    atomic_files.write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    atomic_files.write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def _write_tokenizer(folder: Path, subject: Subject, codec: Codec) -> None:
    """A `tokenizers` file as it is; bytes have none."""
    from tokenizers import Tokenizer

    from harness.data.text.tokenizers import SHIPPED_TOKENIZER

    name = subject.config.data.tokenizer
    if name == "byte":
        return
    content = (SHIPPED_TOKENIZER if name == "bpe512" else Path(name).expanduser()).read_bytes()
    end = Tokenizer.from_buffer(content).id_to_token(codec.end_token)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": subject.config.data.sequence_length,
    }
    atomic_files.write_bytes(folder / "tokenizer.json", content)
    atomic_files.write_text(folder / "tokenizer_config.json", json.dumps(described, indent=2) + "\n")
