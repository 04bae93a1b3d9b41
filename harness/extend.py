"""The stable imports of your own mechanisms (docs/new_variant.md).

Registration, as class decorators with a name, a frozen dataclass of options and the costs:

- `register_attention`: a module of x [B, T, D] and a `Rotary`, which returns [B, T, D].
- `register_feedforward`: a module of x [B, T, D], which returns y, or (y, `RouterStats`) if it has experts.
- `register_conditioning`: a `Conditioning` of the diffusion transformer, which returns one `BranchModulation`
  per branch (`num_branches`).

- `register_block`: a module of (stream, attend, feed), which returns the stream after both branches. The
  stream is x [B, T, D], or what the class `stream` opens from it and closes to it.
- `register_embedding`: a module of the tokens' rows of the table, which returns the input of the layers.
- `register_position`: a function of (context, options), which returns the frequencies of a layer, [J], or
  (frequencies, factor of the scores).
- `register_head`: a module of (x, unembed), which returns float32 logits.
- `register_objective`: a module of (`Forward`, tokens [B, T+1]), which returns an `ObjectiveLoss`;
  `cross_entropy` is the loss of each token; `open_reference` opens a trained run as a teacher.

- `register_optimizer`: a function of (`ParameterGroup`, options, learning rate), which returns an optax
  transformation, or an `Optimizer`, whose gradient is taken, or which is judged, elsewhere.

- `register_schedule`: a function of (`SchedulePlace`, options), which returns the factor of the learning rate
  or of another number of the config at a step.
- `register_metric`: a function of what it asks for by name, which returns a scalar of a step, or a value of
  each held-out row. `record_calls`: arguments and outputs of the calls of a part of the model, for a metric.

- `register_model`: a whole model, any NNX module of a `ModelContext`, options and `nnx.Rngs` with a method
  `loss` of rows, which returns float32 [B, T] or [B]. `decode_images` turns rows of images into `ImageRows`.
- `register_data`: a class that makes rows from seed, step and batch size, for such a model.
- `register_token_format`: a subclass of `TokenReader`, which tells where tokens lie in a file: `FileTokens`
  of `TokenFile`s, or of another `TokenPart`. It raises `TokenFileError` for a file that is none.

- `register_norm`: a module, or a function that builds one, of (size, axis, context, options), which keeps the
  shape of what it normalises. A mechanism builds the configured one by `context.norm(size, axis)`.
- `register_initialisation`: a function of (path, `ParamSpec`, context, options), which returns the `Draw` of
  a parameter's initial values.
- `register_scaling`: a function of (path, `ParamSpec`, `Growth`, options), which returns the `Scale` of a
  parameter's rate, decay and start at another size than the base. `mup` is the default.
- `register_product`: a function of x [N, I], a weight [I, O] and its axes, which returns [N, O].

What a mechanism is told: each argument after those of its socket asks for one thing by its name, from
`SIDE_INPUTS` or the `gives` of another registration. `SideOutputs` is what it may return beside its output.

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
- `lookup`: rows of a table by index; its first axis is `vocabulary`.
- `PreNorm`: the block of a plain decoder. `rms_normalise`: x / rms(x) over the last axis.
- `project`: x @ weight on any mesh. `gather_weight`: a parameter as an array in compute precision.
- `plain_product`: the product in the dtype of x. `straight_through`: with a quantised weight.
  `rounded_product`: with factors of fewer bits, in both gradients too.
- `RMSNorm`: normalisation over the last axis. `Rotary`: position embedding and document indices.
- `shift_time`: x of earlier tokens of the document. `ShortConvolution`: a causal one of each channel.
  `recur`: outputs of a state that each token updates, token by token.
- `SoftmaxAttention`: the base of softmax attention, with `GroupedOptions`, or `ScoreOptions` where every head
  has its own keys: a variant overrides one of its steps, `project_heads`, `rotate`, `heads`, `mix` or
  `attend_heads` (`weights` is its softmax of written-out scores), and is registered by `register_softmax`,
  which is `register_attention` with the costs of the base.
- `attention_scores`, `visible_keys`, `best_keys`, `softmax_weights`, `weighted_values`: attention in steps;
  `block_means`, `own_block`, `earlier_blocks`, `spread_blocks`: by blocks of keys.
- `SwiGLU`: the feed-forward layer. `MoE`: a mixture of experts, with `MoEOptions` and the `Routing` of its
  tokens by `route`: a variant overrides `scores`, `choose`, `apply` or `auxiliary`, and is registered by
  `register_experts`, which is `register_feedforward` with the costs, balance and kernel of `MoE`.
- `per_matrix`: a transformation of hidden matrices as stacks [L, I, O]. `partition`: one for hidden matrices
  and another for the rest. `orthogonal_factor`: Muon's iteration on such a stack.
- `muon_like`: Muon, with `MuonOptions`, and another direction of its momentum; `adam_sized`: a direction at
  the size of Adam's; `each_matrix`: a function of one matrix as a transformation. `scale_by_soap`: SOAP of
  stacks, with `SoapOptions`.
- `AdamOptions`: options of Adam, to add to. `Configured`: the type of an option that is an optimizer, which
  `ParameterGroup.build` builds; `adamw_node` is its default.
"""

from harness.config.socket_registry import Configured
from harness.core.errors import UserError
from harness.data.data_format import register_data
from harness.data.formats.token_format import (
    FileTokens,
    TokenFileError,
    TokenReader,
    register_token_format,
)
from harness.data.tokens.token_sequence import TokenFile, TokenPart
from harness.models.attention.grouped_query import (
    GroupedOptions,
    ScoreOptions,
    SoftmaxAttention,
    register_softmax,
)
from harness.models.attention.kernels.blocks import block_means, earlier_blocks, own_block, spread_blocks
from harness.models.attention.kernels.scores import (
    attention_scores,
    best_keys,
    softmax_weights,
    visible_keys,
    weighted_values,
)
from harness.models.blocks.pre_norm import PreNorm
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.families.own_context import ImageRows, ModelContext, decode_images
from harness.models.families.own_family import register_model
from harness.models.feedforward.moe import MoE, MoEOptions, register_experts
from harness.models.feedforward.routing import Routing, route
from harness.models.feedforward.swiglu import SwiGLU
from harness.models.initialisation.draw import Draw
from harness.models.initialisation.initialisation_registry import register_initialisation
from harness.models.layers import (
    RMSNorm,
    Rotary,
    gather_weight,
    plain_product,
    project,
    rms_normalise,
)
from harness.models.mechanism import NO_PERIOD, LayerContext, MatmulFlops, ModelDims, RouterStats
from harness.models.norms.norm_registry import register_norm
from harness.models.parameters import ParamSpec, constant, gain, weight, zeros
from harness.models.products.product_registry import register_product
from harness.models.products.rounded_factors import rounded_product, straight_through
from harness.models.registry import (
    ConfiguredModule,
    register_attention,
    register_conditioning,
    register_feedforward,
)
from harness.models.scaling.scaling_registry import Growth, Scale, mup, register_scaling
from harness.models.sequence.recurrence import recur
from harness.models.sequence.time_shift import ShortConvolution, shift_time
from harness.models.sockets.entries import (
    register_block,
    register_embedding,
    register_head,
    register_objective,
    register_position,
)
from harness.models.sockets.side_inputs import SIDE_INPUTS, SideOutputs
from harness.models.text.embedding import lookup
from harness.models.text.objective import Forward, ObjectiveLoss, cross_entropy
from harness.training.metrics.call_records import record_calls
from harness.training.metrics.metric_registry import register_metric
from harness.training.optimizers.adamw import AdamOptions, adamw_node
from harness.training.optimizers.muon import MuonOptions, orthogonal_factor
from harness.training.optimizers.muon_like import adam_sized, each_matrix, muon_like
from harness.training.optimizers.optimizer_registry import Optimizer, register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix
from harness.training.optimizers.published.soap import SoapOptions, scale_by_soap
from harness.training.reference_model import open_reference
from harness.training.schedules.schedule_registry import SchedulePlace, register_schedule

__all__ = [
    "NO_PERIOD",
    "SIDE_INPUTS",
    "AdamOptions",
    "BranchModulation",
    "Conditioning",
    "Configured",
    "ConfiguredModule",
    "Draw",
    "FileTokens",
    "Forward",
    "GroupedOptions",
    "Growth",
    "ImageRows",
    "LayerContext",
    "MatmulFlops",
    "MoE",
    "MoEOptions",
    "ModelContext",
    "ModelDims",
    "MuonOptions",
    "ObjectiveLoss",
    "Optimizer",
    "ParamSpec",
    "ParameterGroup",
    "PreNorm",
    "RMSNorm",
    "Rotary",
    "RouterStats",
    "Routing",
    "Scale",
    "SchedulePlace",
    "ScoreOptions",
    "ShortConvolution",
    "SideOutputs",
    "SoapOptions",
    "SoftmaxAttention",
    "SwiGLU",
    "TokenFile",
    "TokenFileError",
    "TokenPart",
    "TokenReader",
    "UserError",
    "adam_sized",
    "adamw_node",
    "attention_scores",
    "best_keys",
    "block_means",
    "constant",
    "cross_entropy",
    "decode_images",
    "each_matrix",
    "earlier_blocks",
    "gain",
    "gather_weight",
    "lookup",
    "muon_like",
    "mup",
    "num_branches",
    "open_reference",
    "orthogonal_factor",
    "own_block",
    "partition",
    "per_matrix",
    "plain_product",
    "project",
    "record_calls",
    "recur",
    "register_attention",
    "register_block",
    "register_conditioning",
    "register_data",
    "register_embedding",
    "register_experts",
    "register_feedforward",
    "register_head",
    "register_initialisation",
    "register_metric",
    "register_model",
    "register_norm",
    "register_objective",
    "register_optimizer",
    "register_position",
    "register_product",
    "register_scaling",
    "register_schedule",
    "register_softmax",
    "register_token_format",
    "rms_normalise",
    "rounded_product",
    "route",
    "scale_by_soap",
    "shift_time",
    "softmax_weights",
    "spread_blocks",
    "straight_through",
    "visible_keys",
    "weight",
    "weighted_values",
    "zeros",
]
