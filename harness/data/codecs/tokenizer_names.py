"""Names by which people call tokenizers, and how to get the file of each.

The harness fetches no tokenizer by itself: the file stays beside the data, and its content is part of the
identity of a run.
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.core.errors import UserError, did_you_mean

BUILT_IN = ("byte", "bpe512", "none")
"""Values of `data.tokenizer` that need no file."""
JSON_FILE = "tokenizer.json"
REPOSITORIES = {
    "gpt2": "openai-community/gpt2",
    "r50k_base": "openai-community/gpt2",
    "gpt3": "openai-community/gpt2",
    "p50k_base": "Xenova/text-davinci-003",
    "cl100k_base": "Xenova/gpt-4",
    "gpt4": "Xenova/gpt-4",
    "o200k_base": "Xenova/gpt-4o",
    "gpt4o": "Xenova/gpt-4o",
    "o200k_harmony": "openai/gpt-oss-20b",
    "gpt_oss": "openai/gpt-oss-20b",
    "gpt_neox": "EleutherAI/gpt-neox-20b",
    "pythia": "EleutherAI/pythia-160m",
    "llama2": "meta-llama/Llama-2-7b-hf",
    "llama3": "meta-llama/Meta-Llama-3-8B",
    "llama3.1": "meta-llama/Llama-3.1-8B",
    "llama3.2": "meta-llama/Llama-3.2-1B",
    "mistral": "mistralai/Mistral-7B-v0.1",
    "qwen2": "Qwen/Qwen2-0.5B",
    "qwen2.5": "Qwen/Qwen2.5-0.5B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "gemma2": "google/gemma-2-2b",
    "gemma3": "google/gemma-3-1b-pt",
    "deepseek_v3": "deepseek-ai/DeepSeek-V3",
    "olmo2": "allenai/OLMo-2-1124-7B",
    "smollm2": "HuggingFaceTB/SmolLM2-135M",
}
"""Repositories of the Hugging Face hub that hold the file, by name."""
AFTER_LOGIN = ("meta-llama/", "google/")
"""Beginnings of repositories that give files only to who has accepted a licence."""
_SHORT_NAMES = {"cl100k": "cl100k_base", "o200k": "o200k_base", "r50k": "r50k_base", "p50k": "p50k_base"}
_SEPARATORS = re.compile(r"[-_. ]")
_REPOSITORY = re.compile(r"(?:hf://)?([A-Za-z0-9][\w.-]*/[\w.-]+)")
_PIECES = ("vocab.json", "merges.txt")
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\n")


def tokenizer_file(name: str) -> Path:
    """Return the JSON file of `data.tokenizer={name}`: the value itself, or the tokenizer.json of a folder.
    Raises UserError, which says how to get one, if there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / JSON_FILE).is_file():
            return path / JSON_FILE
        raise UserError(_folder_without_json(name, path))
    if not path.is_file():
        raise UserError(_missing_file(name))
    if way_out := _other_format(path):
        raise UserError(f"data.tokenizer={name} {way_out}")
    return path


def _missing_file(name: str) -> str:
    plain_names = {_plain(key): repository for key, repository in REPOSITORIES.items()}
    plain = _plain(name)
    repository = plain_names.get(_plain(_SHORT_NAMES.get(plain, name)))
    match = _REPOSITORY.fullmatch(name)
    if repository is None and match and not name.endswith((".json", ".model", ".tiktoken", ".txt")):
        repository = match[1]
    if repository is None:
        guess = did_you_mean(name, (*BUILT_IN, *REPOSITORIES))
        valid = f"{did_you_mean(name, BUILT_IN)}, or the path of a {JSON_FILE}"
        return f"data.tokenizer={name} is not a file: {guess if guess.endswith('?') else valid}"
    folder = repository.rpartition("/")[2]
    login = " (after `hf auth login`: it asks for a licence)" if repository.startswith(AFTER_LOGIN) else ""
    return (
        f"data.tokenizer={name} is the name of a tokenizer, and a file is needed: "
        f"`hf download {repository} {JSON_FILE} --local-dir {folder}`{login}, then "
        f"data.tokenizer={folder}/{JSON_FILE}."
    )


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name.lower())


def _folder_without_json(name: str, folder: Path) -> str:
    if all((folder / piece).is_file() for piece in _PIECES):
        return f"data.tokenizer={name} {_join_pieces(folder)}"
    models = sorted([*folder.glob("*.model"), *folder.glob("*.tiktoken")])
    if models and (way_out := _other_format(models[0])):
        return f"data.tokenizer={name} has no {JSON_FILE}: {models[0].name} {way_out}"
    return f"data.tokenizer={name} is a folder without a {JSON_FILE}. Name the file, or a folder with one."


def _other_format(path: Path) -> str:
    """Return what a file is and how to convert it; empty for one that may be JSON."""
    if path.name in _PIECES and all((path.parent / piece).is_file() for piece in _PIECES):
        return _join_pieces(path.parent)
    if path.suffix not in (".model", ".tiktoken"):
        return ""
    with path.open("rb") as file:
        if _TIKTOKEN_LINE.fullmatch(file.readline(200)):
            return (
                "is a vocabulary of tiktoken, which lacks the pattern that splits words: take the "
                f"{JSON_FILE} of its model (`hf download REPOSITORY {JSON_FILE} --local-dir .`)."
            )
    return (
        "is a SentencePiece model: convert it with `pip install transformers sentencepiece` and "
        f'`python -c "from transformers import AutoTokenizer as A; '
        f"A.from_pretrained('{path.parent}').save_pretrained('{path.parent}')\"`, then "
        f"data.tokenizer={path.parent / JSON_FILE}."
    )


def _join_pieces(folder: Path) -> str:
    vocabulary, merges = (folder / piece for piece in _PIECES)
    return (
        f"is a tokenizer in two files: join them with "
        f'`python -c "from tokenizers import ByteLevelBPETokenizer as B; '
        f"t = B('{vocabulary}', '{merges}'); t.add_special_tokens(['<|endoftext|>']); "
        f"t.save('{folder / JSON_FILE}')\"`, then data.tokenizer={folder / JSON_FILE}."
    )
