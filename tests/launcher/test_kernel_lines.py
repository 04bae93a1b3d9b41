"""What a sweep says of its kernels before it trains."""

from types import SimpleNamespace
from typing import Any

from harness.launcher.stages.kernel_lines import kernel_lines

CUDNN, MIXED = (
    ["attention: cuDNN"],
    ["attention: cuDNN in 1 of 2 layers", "attention: reference in 1 of 2 layers (why)"],
)


def run(variant, kernels, platform="cuda", scale="s") -> Any:
    cluster, named = SimpleNamespace(platform=platform), SimpleNamespace(name=scale)
    config = SimpleNamespace(cluster=cluster, scale=named)
    return SimpleNamespace(config=config, variant=variant, facts=SimpleNamespace(kernels=kernels))


def test_kernels_of_all_runs_are_one_line_and_those_of_a_cpu_none():
    assert kernel_lines([run("a", CUDNN), run("b", CUDNN), run("a", CUDNN, scale="m")]) == [
        "  kernels: attention: cuDNN"
    ]
    assert kernel_lines([run("a", ["attention: reference"], platform="cpu")]) == []


def test_variants_that_differ_in_kernels_are_named():
    lines = kernel_lines([run("a", CUDNN), run("b", MIXED)])
    assert lines[:2] == [
        "  kernels of s/a: attention: cuDNN",
        f"  kernels of s/b: {'; '.join(MIXED)}",
    ]
    assert lines[2].startswith("  the variants differ in kernels")


def test_scales_of_other_depths_do_not_differ_in_kernels():
    other = ["attention: cuDNN in 3 of 6 layers", "attention: reference in 3 of 6 layers (why)"]
    lines = kernel_lines(
        [run("a", MIXED), run("b", MIXED), run("a", other, scale="m"), run("b", other, scale="m")]
    )
    assert len(lines) == 2
