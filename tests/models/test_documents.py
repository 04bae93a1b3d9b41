"""Masked documents: each is read as if it stood alone, by every mechanism."""

import jax
import numpy as np
import pytest

from harness.config.schema.run import ComputeConfig, Remat
from harness.models.attention.kernels import softmax
from tests.models.mechanisms import MECHANISMS, OF_EACH
from tests.models.test_decoder import assert_together_as_alone

END, T = 3, 24
LENGTHS = (7, 1, 10, 6)
"""Of the documents of one sequence: one ends inside a chunk, one is its end alone, one spans several."""


def packed():
    """[1 + documents, T]: all in one sequence, and each alone, followed by what no loss before it can see."""
    draw = np.random.default_rng(3)
    documents = [np.append(draw.integers(4, 16, n - 1), END) for n in LENGTHS]
    alone = [np.append(each, draw.integers(4, 16, T - len(each))) for each in documents]
    return np.stack([np.concatenate(documents), *alone]).astype(np.int32)


def assert_read_alone(model):
    logits = np.asarray(jax.jit(model.logits)(model.init(0), packed()))
    for index, (start, length) in enumerate(zip(np.cumsum((0, *LENGTHS)), LENGTHS, strict=False)):
        np.testing.assert_allclose(
            logits[0, start : start + length], logits[1 + index, :length], atol=1e-5, err_msg=str(index)
        )


def test_a_document_is_read_as_if_it_stood_alone(small, monkeypatch):
    """Softmax in blocks and in chunks, latent, linear: one cycle of them."""
    monkeypatch.setattr(softmax, "SHORTEST_BLOCK", 5)
    cycle = [*OF_EACH, {"name": "mha"}]
    assert_read_alone(small("pattern", options={"cycle": cycle}, layers=4, length=T, end=END))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), MECHANISMS.values(), ids=MECHANISMS)
def test_every_mechanism_reads_a_document_as_if_it_stood_alone(small, name, options):
    assert_read_alone(small(name, options=options, layers=2, length=T, end=END))


def test_without_the_mask_documents_see_each_other(small):
    with pytest.raises(AssertionError):
        assert_read_alone(small(layers=1, length=T))


@pytest.mark.slow
def test_scan_remat_and_eight_devices_equal_plain_with_documents(small, tokens):
    compute = ComputeConfig(scan_layers=True, remat=Remat.dots)
    given = {"name": "pattern", "options": {"cycle": OF_EACH}, "layers": 6, "end": END}
    assert_together_as_alone(small, tokens, compute, **given)
