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
# # A first verdict
#
# Two architectures are trained side by side on the same tokens, and compared with error bars. The control is full attention (`mha`); in the treatment (`short`) every layer sees the last 8 tokens only.

# %%
import altair as alt

import harness

_ = alt.renderers.enable("png")  # pictures that every viewer shows; leave this out in JupyterLab

# %% [markdown]
# `harness.sweep` takes the overrides of the command `harness sweep`. The runs train in processes of their own, so the notebook never imports JAX. Interrupt the kernel and every run saves; the same cell continues.

# %%
sweep = harness.sweep(
    [
        "experiment=attention",
        "variant=mha,short",
        "scale=xs",
        "scale.tokens=40_000",
        "seed=0,1,2",
        "rule.positive_control=null",
        "experiment_name=first_verdict",
    ]
)

# %% [markdown]
# A sweep shows its verdict. `k` says how many times as many tokens the control needs for the loss of the treatment: below 1, the treatment is worse.

# %%
sweep

# %% [markdown]
# A pair is a treatment beside the control at one scale. The two runs of a pair have the same seed: the same first weights, and the same examples in the same order. So much of the noise cancels.

# %%
pair = sweep.pair("short", "mha", scale="xs")
pair

# %%
pair.figure()

# %% [markdown]
# Numbers are polars frames: `runs`, `evals`, `steps`, `effects`, `curves()`, and of a pair `seeds` and `differences`.

# %%
sweep.effects.select("scale", "variant", "n", "mean", "low", "high", "k", "decision")

# %% [markdown]
# The verdict has the reason of each decision and, where nothing is decided, what would settle it. *Not settled* is an answer of its own: it does not mean that the two are equal.

# %%
sweep.verdict

# %%
sweep.figure("curves")
