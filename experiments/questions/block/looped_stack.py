"""Looped stack: layers are applied `passes` times; each later pass starts from x + c x0, c = 1."""

from dataclasses import dataclass

from harness.extend import PreNorm, UserError, constant, gather_weight, register_block


@dataclass(frozen=True)
class Options:
    passes: int = 2
    outer: int = 0
    """Layers at each end that are applied once."""


def order(options, layers):
    inner = tuple(range(options.outer, layers - options.outer))
    if not inner:
        raise UserError(
            f"model.block.options.outer={options.outer} leaves none of {layers} layers. Lower it."
        )
    return (*range(inner[0]), *inner * options.passes, *range(inner[-1] + 1, layers))


@register_block("looped_stack", Options, order=order)
class LoopedStack(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.is_start = context.layer == options.outer
        if self.is_start:
            self.input_scalar = constant(1, None, 1.0)

    def __call__(self, x_BTD, attend, feed, visit, x0_BTD):
        if self.is_start and visit:
            x_BTD = x_BTD + gather_weight(self.input_scalar, x_BTD.dtype) * x0_BTD
        return super().__call__(x_BTD, attend, feed)
