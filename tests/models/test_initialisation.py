"""Distributions of initial values: against scipy's, drawn in blocks, and chosen by the config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.config.schema.run import ComputeConfig, ModelConfig, ModuleConfig
from harness.core.errors import UserError
from harness.models import parameters
from harness.models.initialisation.draw import Draw
from harness.models.initialisation.initialisation_registry import INITIALISATIONS, register_initialisation
from harness.models.parameters import ParamSpec, init_blocks, init_param
from harness.training.optimizers.matrices import hidden_matrices

DRAWS = (
    Draw("normal", 0.3, 0.7),
    Draw("uniform", 0.3, 0.7),
    Draw("truncated", 0.3, 0.7, cut=1.5),
    Draw("orthogonal", 0.3),
    Draw("pattern", 0.3, 0.7, pattern=lambda shape: np.indices(shape).sum(0)),
)


def spec_of(draw: Draw, *shape: int, axes: tuple[str | None, ...] | None = None) -> ParamSpec:
    return ParamSpec(shape, axes or (None,) * len(shape), draw, fan_in=shape[0], decays=True)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (DRAWS[0], stats.norm(0.7, 0.3)),
        (DRAWS[1], stats.uniform(0.7 - 0.3 * 3**0.5, 2 * 0.3 * 3**0.5)),
        (DRAWS[2], stats.truncnorm(-1.5, 1.5, 0.7, 0.3)),
    ],
    ids=lambda value: getattr(value, "distribution", ""),
)
def test_values_follow_the_distribution_of_scipy(draw, expected):
    values = init_param(0, "a", spec_of(draw, 300, 400)).ravel()
    assert stats.kstest(values, expected.cdf).pvalue > 0.01
    assert values.mean() == pytest.approx(expected.mean(), abs=0.004)
    assert values.std() == pytest.approx(expected.std(), rel=0.01)
    assert expected.support()[0] - 1e-6 <= values.min() < values.max() <= expected.support()[1] + 1e-6


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.distribution)
@pytest.mark.parametrize("piece", [1, 5, 30, 2**18])
def test_blocks_drawn_apart_are_those_of_the_whole(draw, piece, monkeypatch):
    spec = spec_of(draw, 7, 9)
    whole = init_param(3, "layers.0.a", spec)
    monkeypatch.setattr(parameters, "PIECE", piece)
    for block in [(range(7), range(9)), (range(2, 6), range(3, 5)), (range(6, 7), range(9))]:
        (part,) = init_blocks(3, "layers.0.a", spec, [block])
        assert part.tobytes() == whole[np.ix_(*block)].tobytes()


def gram(matrix_IO: np.ndarray) -> np.ndarray:
    tall = matrix_IO if matrix_IO.shape[0] >= matrix_IO.shape[1] else matrix_IO.T
    return tall.T @ tall


@pytest.mark.parametrize(
    ("shape", "axes", "matrix"),
    [
        ((12, 8), ("width", "ffn"), (12, 8)),
        ((8, 12), ("width", "ffn"), (8, 12)),
        ((12, 3, 2), ("width", "heads", None), (12, 6)),
        ((3, 2, 12), ("heads", None, "width"), (6, 12)),
    ],
)
def test_orthogonal_rows_or_columns_have_the_declared_size(shape, axes, matrix):
    values = init_param(0, "a", spec_of(Draw("orthogonal", 12**-0.5), *shape, axes=axes))
    np.testing.assert_allclose(gram(values.reshape(matrix)), np.eye(min(matrix)), atol=1e-6)


def test_each_expert_is_orthogonal_by_itself():
    spec = spec_of(Draw("orthogonal", 8**-0.5), 3, 8, 4, axes=("experts", "width", "ffn"))
    for matrix in init_param(0, "a", spec):
        np.testing.assert_allclose(gram(matrix), np.eye(4), atol=1e-6)


def test_orthogonal_matrices_are_drawn_evenly():
    """The first value of a random direction in n dimensions: its square follows beta(1/2, (n-1)/2)."""
    spec = spec_of(Draw("orthogonal", 1.0), 500, 6, 4, axes=("experts", "width", "ffn"))
    first = init_param(1, "a", spec)[:, 0, 0] / 6**0.5
    assert stats.kstest(first**2, stats.beta(0.5, 2.5).cdf).pvalue > 0.01
    assert abs(np.sign(first).mean()) < 0.1


@dataclass(frozen=True)
class Options:
    zero: str = "output"


@pytest.fixture
def with_rules():
    entries = dict(INITIALISATIONS.entries)

    @register_initialisation("zero_outputs", Options)
    def zero_outputs(path: str, spec: ParamSpec, context: Any, options: Options) -> Draw:
        return Draw() if path.endswith(options.zero) else spec.draw

    @register_initialisation("by_layer")
    def by_layer(path: str, spec: ParamSpec, context: Any, options: Any) -> Draw:
        return Draw(mean=context.layer) if path.endswith("up") else spec.draw

    @register_initialisation("turned")
    def turned(path: str, spec: ParamSpec, context: Any, options: Any) -> Draw:
        return dataclasses.replace(spec.draw, distribution="orthogonal")

    yield
    INITIALISATIONS.entries.clear()
    INITIALISATIONS.entries.update(entries)


def test_a_weight_that_starts_at_zero_stays_a_weight(with_rules, small):
    plain = small()
    zero = small(initialisation=ModuleConfig("zero_outputs"))
    assert not zero.init(0)["layers.0.attention.output"].any()
    assert hidden_matrices(zero).keys() == hidden_matrices(plain).keys()
    assert {p: s.decays for p, s in zero.stored_specs.items()} == {
        p: s.decays for p, s in plain.stored_specs.items()
    }
    assert zero.learning_rate_scales == plain.learning_rate_scales
    for path, values in plain.init(0).items():
        assert path.endswith("output") or np.array_equal(values, zero.init(0)[path])


def test_layers_of_a_scan_keep_draws_of_their_own(with_rules, small):
    initialisation = ModuleConfig("by_layer")
    scan = small(initialisation=initialisation, layers=4, compute=ComputeConfig(scan_layers=True))
    start = scan.init(0)["repeats.0.feedforward.up"]
    assert [*start.mean(axis=(1, 2))] == [0, 1, 2, 3]


def test_what_cannot_be_drawn_is_refused(with_rules, small, monkeypatch):
    with pytest.raises(UserError, match=r"draws .*gain as 'orthogonal', but it is a vector"):
        small(initialisation=ModuleConfig("turned"))
    monkeypatch.setattr("harness.models.initialisation.initialisation_registry.MAX_WHOLE", 100)
    with pytest.raises(UserError, match=r"which needs all of them at once, and 100 are the most"):
        small(initialisation=ModuleConfig("turned"))
    with pytest.raises(UserError, match=r"model\.initialisation\.name=fanin .*did you mean 'fan_in'"):
        small(initialisation=ModuleConfig("fanin"))


def test_the_default_is_what_modules_declare(small):
    assert ModelConfig().initialisation == ModuleConfig("fan_in")
    assert small().param_specs["layers.0.attention.query"].draw == Draw("normal", 1 / 8**0.5)
