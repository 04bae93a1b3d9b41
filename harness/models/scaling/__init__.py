"""Rules that carry learning rates, decay and initial values to a model of another size."""

from harness.models.scaling import complete_p

__all__ = ["complete_p"]
