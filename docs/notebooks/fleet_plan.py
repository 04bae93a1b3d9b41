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
# # Planning a real fleet
#
# Before a large run is paid for, `harness.plan` predicts what it takes: memory, layout, step time, days, failures and energy, each with its interval and evidence. Nothing is trained, and no accelerator is needed.

# %%
import altair as alt
import polars as pl

import harness

_ = alt.renderers.enable("png")  # pictures that every viewer shows; leave this out in JupyterLab

# %% [markdown]
# A model of 1 T parameters with full attention, and the same with a hybrid, each on half of 16,384 H100, the machine of Llama 3 405B. `conf/cluster/h100_16k.yaml` describes it; a comment there marks each number as taken from a data sheet or a paper, or as assumed.

# %%
FLEET = ["experiment=colossus2", "roster=frontier", "cluster=h100_16k"]
plan = harness.plan([*FLEET, "member=1t_a,1t_b"])
plan

# %%
plan.figure("memory")

# %% [markdown]
# The numbers are a frame, with the ends of their intervals. Days hold interruptions and saves.

# %%
plan.runs.select(
    "variant",
    "chips",
    pl.col("step_seconds", "step_seconds_low", "step_seconds_high").round(1),
    pl.col("days", "days_low", "days_high").round(1),
)

# %% [markdown]
# A model of 10 T parameters on the same machine: the plan says what is missing.

# %%
larger = harness.plan([*FLEET, "member=10t"])
larger.runs.select("name", "chips", "devices", "days", "verdict").to_dicts()

# %% [markdown]
# A cluster of your own is a YAML file: [planning.md](../planning.md) has the model behind the numbers, and how it was validated against published runs.
