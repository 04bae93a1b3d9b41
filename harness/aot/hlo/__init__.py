"""Matrix-product FLOPs and collective traffic of one device, from optimized HLO text.

`cost_analysis()` of a compiled step counts a loop body once and is absent on GPU. This package walks the text
instead and counts a loop body once per iteration. No JAX import: the text may come from any process.
"""

from harness.aot.hlo.counts import HloCounts, Transfer, read_hlo

__all__ = ["HloCounts", "Transfer", "read_hlo"]
