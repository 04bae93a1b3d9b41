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
- `NO_PERIOD`: the `period` of a mechanism of which no two layers are alike.
- `UserError`: raise it for options that cannot work. The message names the key, the value and the way out.

Building blocks:

- `weight`, `zeros`, `constant`, `gain`: declare a parameter of random values, zeros, one constant, or ones.
- `project`: x @ weight on any mesh. `gather_weight`: a parameter as an array in compute precision.
- `RMSNorm`: normalisation over the last axis. `Rotary`: position embedding and document indices.
- `shift_time`: x of earlier tokens of the document. `ShortConvolution`: a causal one of each channel.
  `recur`: outputs of a state that each token updates, token by token.
- `SoftmaxAttention`: the base of softmax attention, with `GroupedOptions`: a variant overrides one of its
  steps, `project_heads`, `rotate`, `heads`, `mix` or `attend_heads`.
- `attention_scores`, `visible_keys`, `best_keys`, `softmax_weights`, `weighted_values`: attention in steps;
  `block_means`, `own_block`, `earlier_blocks`, `spread_blocks`: by blocks of keys.
- `SwiGLU`: the feed-forward layer. `MoE`: a mixture of experts, with `MoEOptions` and the `Routing` of its
  tokens: a variant overrides `scores`, `choose`, `apply` or `auxiliary`, and is registered by
  `register_experts`, which is `register_feedforward` with the balance and the kernel of `MoE`.
"""

from harness.core.errors import UserError
from harness.models.attention.grouped_query import GroupedOptions, SoftmaxAttention
from harness.models.attention.kernels.blocks import block_means, earlier_blocks, own_block, spread_blocks
from harness.models.attention.kernels.scores import (
    attention_scores,
    best_keys,
    softmax_weights,
    visible_keys,
    weighted_values,
)
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.feedforward.moe import MoE, MoEOptions, register_experts
from harness.models.feedforward.routing import Routing
from harness.models.feedforward.swiglu import SwiGLU
from harness.models.layers import RMSNorm, Rotary, gather_weight, project
from harness.models.mechanism import NO_PERIOD, LayerContext, MatmulFlops, ModelDims, RouterStats
from harness.models.parameters import constant, gain, weight, zeros
from harness.models.registry import (
    ConfiguredModule,
    register_attention,
    register_conditioning,
    register_feedforward,
)
from harness.models.sequence.recurrence import recur
from harness.models.sequence.time_shift import ShortConvolution, shift_time

__all__ = [
    "BranchModulation",
    "Conditioning",
    "ConfiguredModule",
    "GroupedOptions",
    "LayerContext",
    "MatmulFlops",
    "MoE",
    "MoEOptions",
    "ModelDims",
    "NO_PERIOD",
    "RMSNorm",
    "Rotary",
    "RouterStats",
    "Routing",
    "ShortConvolution",
    "SoftmaxAttention",
    "SwiGLU",
    "UserError",
    "attention_scores",
    "best_keys",
    "block_means",
    "constant",
    "earlier_blocks",
    "gain",
    "gather_weight",
    "num_branches",
    "own_block",
    "project",
    "recur",
    "register_attention",
    "register_conditioning",
    "register_experts",
    "register_feedforward",
    "shift_time",
    "softmax_weights",
    "spread_blocks",
    "visible_keys",
    "weight",
    "weighted_values",
    "zeros",
]
