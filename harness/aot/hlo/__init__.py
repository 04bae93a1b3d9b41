"""Reads what a compiler made of a step: products and traffic of one device, from optimized HLO text.

`cost_analysis()` of a compiled step counts the body of a loop once and is absent on GPU, so the text is
walked instead, every loop as often as it runs. Imports no JAX: the text may come from any process.
"""

from harness.aot.hlo.counts import Counts, Transfer, read_hlo

__all__ = ["Counts", "Transfer", "read_hlo"]
