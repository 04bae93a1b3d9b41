# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A mechanism of your own
#
# One Python file and one YAML file in your own folder; the harness does not change. This notebook writes both, lets the harness check them, and compares the mechanism with full attention. The idea: what each head returns is multiplied by a gate that reads the layer's input.

# %%
from pathlib import Path

import altair as alt

import harness

_ = alt.renderers.enable("png")  # pictures that every viewer shows; leave this out in JupyterLab

MECHANISM = """
import jax

from harness.extend import GroupedOptions, SoftmaxAttention, project, register_softmax, weight


@register_softmax("gated", GroupedOptions)
class GatedAttention(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.gate = weight((D, H, K), ("width", "heads", None), fan_in=D)

    def attend_heads(self, x_BTD, rotary):
        return super().attend_heads(x_BTD, rotary) * 2 * jax.nn.sigmoid(project(x_BTD, self.gate))
"""
_ = Path("gated.py").write_text(MECHANISM)

# %% [markdown]
# The variant has a name, and lists in `touches` the nodes of the config in which it may differ from the control.

# %%
VARIANT = """# @package _global_
variant:
  name: gated
  touches: [model.attention]
model:
  attention:
    name: gated
"""
Path("ideas/variant").mkdir(parents=True, exist_ok=True)
_ = Path("ideas/variant/gated.yaml").write_text(VARIANT)

# %% [markdown]
# Before anything is trained, the harness checks a mechanism that is not its own: that its FLOPs are counted, that outputs do not depend on later tokens, that every parameter gets a gradient. This one forgot to count the product of its gate.

# %%
OVERRIDES = [
    "experiment=attention",
    "variant=mha,gated",
    "scale=xs",
    "scale.tokens=16_000",
    "evaluation.tokens=4_096",
    "seed=0,1",
    "rule.positive_control=null",
    "experiment_name=gated",
    "hydra.searchpath=[file://ideas]",
    "imports=[gated]",
]
try:
    harness.sweep(OVERRIDES)
except harness.UserError as error:
    print(error)

# %% [markdown]
# The product of the gate has 2 FLOPs a weight and token.

# %%
COUNTED = """lambda context, options: (
    2.0 * context.shape.width * context.shape.heads * context.shape.head_width
)"""
Path("gated.py").write_text(MECHANISM.replace("GroupedOptions)\n", f"GroupedOptions, {COUNTED})\n"))
sweep = harness.sweep(OVERRIDES)
sweep

# %% [markdown]
# Two pairs are too few for a verdict, so it is not settled. `effects` counts per token; the gate costs FLOPs too, and `k` per FLOP stands in the verdict.

# %%
sweep.pair("gated")

# %%
sweep.figure("difference")

# %% [markdown]
# Add scales and seeds for a verdict: leave out `scale`, `scale.tokens` and `seed`, and the experiment's own ladder runs. [new_variant.md](../new_variant.md) explains attention from scratch, and [sockets](../sockets/README.md) every other part of a model that can be yours.
