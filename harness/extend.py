"""The stable imports of your own mechanisms (docs/new_variant.md).

Registration, as class decorators with a name, a frozen dataclass of options and the costs:

- `register_attention`: a module of x [B, T, D] and a `Rotary`, which returns [B, T, D].
- `register_feedforward`: a module of x [B, T, D], which returns y, or (y, `RouterStats`) if it has experts.
- `register_conditioning`: a `Conditioning` of the diffusion transformer, which returns one `BranchModulation`
  per branch (`num_branches`).

Contract:

- `LayerContext`: facts about the layer, passed to the costs and the constructor; `shape` is a `ModelDims`.
- `MatmulFlops`: result of `executed_flops`, FLOPs per token grouped for rematerialisation.
- `RouterStats`: load, dropped tokens and auxiliary loss of a layer with experts.
- `ConfiguredModule`: a mechanism with its options. In options, `tuple[ConfiguredModule, ...]` is a list of
  `{name, options}` nodes.
- `UserError`: raise it for options that cannot work. The message names the key, the value and the way out.

Building blocks:

- `weight`, `zeros`, `constant`, `gain`: declare a parameter of random values, zeros, one constant, or ones.
- `project`: x @ weight on any mesh. `gather_weight`: a parameter as an array in compute precision.
- `RMSNorm`: normalisation over the last axis. `Rotary`: position embedding and document indices.
"""

from harness.core.errors import UserError
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.layers import RMSNorm, Rotary, gather_weight, project
from harness.models.mechanism import LayerContext, MatmulFlops, ModelDims, RouterStats
from harness.models.parameters import constant, gain, weight, zeros
from harness.models.registry import (
    ConfiguredModule,
    register_attention,
    register_conditioning,
    register_feedforward,
)

__all__ = [
    "BranchModulation",
    "Conditioning",
    "ConfiguredModule",
    "LayerContext",
    "MatmulFlops",
    "ModelDims",
    "RMSNorm",
    "Rotary",
    "RouterStats",
    "UserError",
    "constant",
    "gain",
    "gather_weight",
    "num_branches",
    "project",
    "register_attention",
    "register_conditioning",
    "register_feedforward",
    "weight",
    "zeros",
]
