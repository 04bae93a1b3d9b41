"""Models that several tests plan with."""

import dataclasses

from harness.plan import ModelShape, decoder_shape

KIMI_LIKE = decoder_shape(
    name="1t",
    layers=61,
    width=7168,
    heads=64,
    head_width=128,
    ffn=2048,
    vocabulary=163_840,
    sequence=4096,
    batch=4096,
    experts=384,
    top_k=8,
    shared_experts=1,
    tied=False,
)
"""As large as Kimi K2 (arXiv:2507.20534), with plain attention."""


def llama(batch: int = 2048, tokens: int | None = 15_000_000_000_000) -> ModelShape:
    """Llama 3 405B (arXiv:2407.21783)."""
    return decoder_shape(
        name="405b",
        layers=126,
        width=16_384,
        heads=128,
        kv_heads=8,
        head_width=128,
        ffn=53_248,
        vocabulary=128_256,
        sequence=8192,
        batch=batch,
        tied=False,
        qk_norm=False,
        tokens=tokens,
    )


def _large(name: str, layers: int, width: int, heads: int, ffn: int, tokens: int) -> ModelShape:
    return decoder_shape(
        name=name,
        layers=layers,
        width=width,
        heads=heads,
        head_width=128,
        ffn=ffn,
        vocabulary=163_840,
        sequence=32_768,
        batch=2048,
        experts=256,
        top_k=8,
        shared_experts=1,
        tied=False,
        tokens=tokens * 10**12,
    )


def frontier() -> list[ModelShape]:
    """Seven models at the sizes that were announced for one cluster; shapes assumed."""
    sizes = {
        "1t_a": (76, 8192, 64, 2032, 22),
        "1t_b": (76, 8192, 64, 2032, 22),
        "1p5t_a": (80, 9728, 76, 2432, 33),
        "1p5t_b": (80, 9728, 76, 2432, 33),
        "6t": (112, 16_384, 128, 4160, 36),
        "10t": (120, 20_480, 160, 5184, 36),
    }
    models = [
        dataclasses.replace(_large(name, *size), block=name.partition("_")[0]) for name, size in sizes.items()
    ]
    image = decoder_shape(
        name="image",
        layers=30,
        width=6144,
        heads=48,
        head_width=128,
        ffn=16_384,
        vocabulary=1001,
        sequence=4096,
        batch=4096,
        tokens=8_192_000_000_000,
    )
    return [*models, image]
