"""A process may draw the blocks that it holds: they are bitwise those of the whole."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.models import parameters
from harness.models.initialisation.draw import Draw
from harness.models.parameters import ParamSpec, init_blocks, init_param


def drawn_at_once(seed: int, path: str, spec: ParamSpec) -> np.ndarray:
    """The definition: one call of numpy's generator for the whole parameter."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{path}".encode()).digest()[:16], "little")
    values = np.random.Generator(np.random.Philox(key=key)).standard_normal(spec.shape, np.float32)
    return np.float32(spec.draw.mean) + values * np.float32(spec.draw.deviation)


def spec_of(*shape: int, mean: float = 0.0) -> ParamSpec:
    return ParamSpec(shape, (None,) * len(shape), Draw("normal", 0.3, mean))


@st.composite
def specs_and_blocks(draw):
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    ends = st.tuples(*(st.lists(st.integers(0, n), min_size=2, max_size=2).map(sorted) for n in shape))
    blocks = draw(st.lists(ends, min_size=1, max_size=3))
    return spec_of(*shape, mean=0.7), [tuple(range(*pair) for pair in block) for block in blocks]


@given(specs_and_blocks(), st.sampled_from([1, 2, 3, 5, 30, 2**18]))
@settings(max_examples=200, deadline=None)
def test_any_blocks_are_those_of_the_whole_whatever_the_pieces(case, piece):
    spec, blocks = case
    whole = drawn_at_once(3, "layers.0.a", spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "PIECE", piece)
        for block, array in zip(blocks, init_blocks(3, "layers.0.a", spec, blocks), strict=True):
            index = tuple(slice(part.start, part.stop) for part in block)
            assert array.tobytes() == whole[index].tobytes()


@pytest.mark.parametrize("shape", [(700_001,), (3, 1000, 301), (2, 600_000), (1, 1, 1)])
def test_large_parameters_too(shape):
    spec = spec_of(*shape)
    assert init_param(1, "a", spec).tobytes() == drawn_at_once(1, "a", spec).tobytes()


def test_a_constant_is_not_drawn():
    spec = ParamSpec((4, 6), (None, None), Draw(mean=1.5))
    (block,) = init_blocks(0, "a", spec, [(range(1, 3), range(6))])
    assert block.dtype == np.float32
    assert (block == 1.5).all()
    assert block.shape == (2, 6)


def test_only_the_blocks_and_one_piece_are_held():
    spec = spec_of(64, 2**16)  # 16 MiB
    tracemalloc.start()
    try:
        (block,) = init_blocks(0, "a", spec, [(range(60, 64), range(2**16))])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < block.nbytes + 4 * parameters.PIECE + 2**16


def test_what_lies_after_the_last_block_is_not_drawn(monkeypatch):
    pieces = []
    real = parameters._pieces
    monkeypatch.setattr(
        parameters, "_pieces", lambda shape: (pieces.append(piece) or piece for piece in real(shape))
    )
    init_blocks(0, "a", spec_of(64, 2**16), [(range(4), range(2**16))])
    assert len(pieces) == 2, "the first, and the one that is not drawn"
