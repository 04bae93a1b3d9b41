"""Text sampled from a finished run. Each token recomputes the whole context: no KV cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.core.errors import UserError
from harness.inspection.load_run import PredictFn, load_run, prepare_process
from harness.records.run.find_checkpoint import Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from harness.data.codecs.codec import Codec


def sample(
    where: Path | str,
    prompt: str = "",
    tokens: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    trust: bool = False,
) -> str:
    """Return the prompt and up to `tokens` more tokens, until the document ends. Temperature 0 is greedy.

    The same call on the same machine gives the same text. Raises UserError for a number out of range, a
    missing checkpoint, an image model, or a changed tokenizer, and without `trust` for unknown modules.
    """
    _check_options(tokens, temperature, seed)
    checkpoint = find_checkpoint(where)
    prepare_process(checkpoint, trust=trust)
    run = load_run(checkpoint)
    if not run.predicts_tokens:
        raise UserError(f"{where} is of a {run.noun}, which writes no text.")
    codec = load_run_codec(checkpoint)
    predict = run.predict_fn(checkpoint.step, rows=1)
    (prompt_tokens,) = codec.encode([prompt])
    assert codec.end_token is not None  # a tokenizer that encodes has one
    start = [codec.end_token, *prompt_tokens.tolist()]  # documents start with it in training
    length = checkpoint.config.data.sequence_length
    text = _generate(predict, start, tokens, temperature, seed, length, codec.end_token)
    return codec.decode(np.array(text))


def load_run_codec(checkpoint: Checkpoint) -> Codec:
    """Return the tokenizer of a run. Raises UserError if it has changed since training."""
    from harness.data.codecs.tokenizer_file import load_codec

    name = checkpoint.config.data.tokenizer
    facts = checkpoint.provenance.facts
    trained_vocabulary = facts.shape["vocabulary"]
    codec = load_codec(checkpoint.config.data)
    if codec.vocabulary != trained_vocabulary:
        raise UserError(
            f"data.tokenizer={name} has {codec.vocabulary} tokens, but {checkpoint.run.path} was trained "
            f"with {trained_vocabulary}. Restore the file that it was trained with."
        )
    if facts.tokenizer and codec.fingerprint != facts.tokenizer:
        raise UserError(
            f"data.tokenizer={name} has changed since {checkpoint.run.path} was trained. Restore the file "
            "that it was trained with."
        )
    return codec


def sample_token(logits_V: Float[np.ndarray, " V"], temperature: float, uniform: float) -> int:
    """Return the argmax at temperature 0, else the token at which the cumulative softmax passes `uniform`."""
    if temperature == 0:
        return int(np.argmax(logits_V))
    scaled_V = (logits_V.astype(np.float64) - logits_V.max()) / temperature
    cumulated_V = np.cumsum(np.exp(scaled_V))
    return int(np.searchsorted(cumulated_V, uniform * cumulated_V[-1], side="right"))


def _generate(
    predict: PredictFn, text: list[int], tokens: int, temperature: float, seed: int, length: int, end: int
) -> list[int]:
    """Return `text` with the generated tokens, each predicted from the last `length` tokens."""
    rng = np.random.default_rng(seed)
    for _ in range(tokens):
        context = text[-length:]
        padded_NT1 = np.zeros((1, length + 1), np.int32)  # causal: the padding is not seen
        padded_NT1[0, : len(context)] = context
        logits_V = predict(padded_NT1).logits_NTV[0, len(context) - 1]
        text = [*text, sample_token(logits_V, temperature, rng.random())]
        if text[-1] == end:
            break
    return text


def _check_options(tokens: int, temperature: float, seed: int) -> None:
    if tokens < 1:
        raise UserError(f"--tokens={tokens}: give 1 or more")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"--temperature={temperature}: give 0 for the likeliest token, or more, such as 0.8")
    if seed < 0:
        raise UserError(f"--seed={seed}: give 0 or more")
