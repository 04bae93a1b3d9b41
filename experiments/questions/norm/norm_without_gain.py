"""RMS norm without a gain: y = x / rms x."""

from flax import nnx

from harness.extend import register_norm, rms_normalise


@register_norm("norm_without_gain")
class NormWithoutGain(nnx.Module):
    """Normalisation over the last axis, with nothing learned."""

    def __init__(self, size, axis, context, options):
        self.epsilon = context.norm_epsilon

    def __call__(self, x):
        return rms_normalise(x, self.epsilon).astype(x.dtype)
