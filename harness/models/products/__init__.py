"""Products with weights, in the dtype of their inputs or in fewer bits."""

from harness.models.products import fp8

__all__ = ["fp8"]
