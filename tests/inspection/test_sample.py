"""What is sampled is what the model says, token by token."""

import jax
import numpy as np
import pytest

from harness.cli import main
from harness.core.errors import UserError
from harness.inspection import sample_text as probe
from harness.inspection.load_run import load_run
from harness.inspection.sample_text import sample, sample_token
from harness.models import TextModel
from harness.records.run.find_checkpoint import find_checkpoint
from tests.inspection.saved import at_start


@pytest.fixture(scope="module")
def run(folder):
    return at_start(folder)


def test_temperature_nought_is_the_likeliest_token_each_time(run):
    """Against the model itself, past the length of its context, with something else behind the text."""
    subject = load_run(find_checkpoint(run.path))
    params, text = subject.stored_weights(0), [256, *b"a fox"]
    assert isinstance(subject.model, TextModel)
    logits = jax.jit(subject.model.logits)
    for _ in range(40):
        seen = text[-32:]
        seen_1T = np.array([seen + [7] * (32 - len(seen))], np.int32)
        text.append(int(np.argmax(logits(params, seen_1T)[0, len(seen) - 1])))
        if text[-1] == 256:
            break
    expected = bytes(token for token in text if token < 256).decode(errors="replace")
    assert sample(run.path, "a fox", tokens=40, temperature=0.0) == expected


def test_tokens_come_as_often_as_they_are_likely():
    logits_V = np.log(np.array([0.5, 0.0001, 0.3, 0.2], np.float32))
    rng = np.random.default_rng(0)
    for temperature in (1.0, 0.5):
        share_V = np.exp(logits_V / temperature) / np.exp(logits_V / temperature).sum()
        found = [sample_token(logits_V, temperature, rng.random()) for _ in range(20_000)]
        np.testing.assert_allclose(np.bincount(found, minlength=4) / 20_000, share_V, atol=0.015)


def test_the_seed_decides(run):
    one, again, other = (sample(run.path, "fox", 20, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert one.startswith("fox")


def test_a_document_that_ends_is_the_end(run, monkeypatch):
    picked = iter([97, 98, 256, 99])
    monkeypatch.setattr(probe, "sample_token", lambda *_: next(picked))
    assert sample(run.path, "x", 20) == "xab"


def test_the_verb_prints_the_text(run, capsys):
    assert main(["sample", f"{run.path}@0", "--prompt", "a lazy", "--tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("a lazy")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"tokens": 0}, "--tokens=0"), ({"temperature": -1.0}, "--temperature=-1"), ({"seed": -1}, "--seed=-1")],
)
def test_numbers_out_of_range_are_said(run, changes, said):
    with pytest.raises(UserError, match=said):
        sample(run.path, **changes)


def test_another_tokenizer_by_now_is_said(run, monkeypatch):
    monkeypatch.setattr("harness.data.codecs.tokenizer_file.ByteCodec.vocabulary", 300)
    with pytest.raises(UserError, match=r"has 300 tokens, but .* was trained with 257"):
        sample(run.path)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--tokens", "many"], ["nowhere/a"]])
def test_mistakes_are_one_sentence(arguments, capsys):
    assert main(["sample", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
