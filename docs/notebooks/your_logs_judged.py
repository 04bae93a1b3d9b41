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
# # Your logs, judged
#
# Runs that you trained elsewhere are judged by the same rules, from their logs alone. Here a trainer of twenty lines stands for yours: NumPy, a bigram model of a made-up language, and two optimizers: plain gradient descent and Adagrad.

# %%
import altair as alt
import numpy as np
import polars as pl

import harness

_ = alt.renderers.enable("png")  # pictures that every viewer shows; leave this out in JupyterLab

SYMBOLS, BATCH = 16, 256
language = np.random.default_rng(0).dirichlet(np.full(SYMBOLS, 0.3), size=SYMBOLS)  # P(next | symbol)


def draw_pairs(random, count):
    """Return symbols, and the symbols that follow them."""
    first = random.integers(SYMBOLS, size=count)
    ends = language[first].cumsum(axis=1)
    return first, (random.random((count, 1)) > ends).sum(axis=1).clip(max=SYMBOLS - 1)


def train(optimizer, seed, steps=200):
    """Train one run, and yield a row of its log at every evaluation."""
    random, held_out = np.random.default_rng(seed), draw_pairs(np.random.default_rng(99), 4000)
    logits, squares = 0.1 * random.standard_normal((SYMBOLS, SYMBOLS)), np.zeros((SYMBOLS, SYMBOLS))
    for step in range(1, steps + 1):
        first, following = draw_pairs(random, BATCH)
        errors = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))[first]
        errors[np.arange(BATCH), following] -= 1
        gradient = np.zeros_like(logits)
        np.add.at(gradient, first, errors / BATCH)
        squares += gradient**2
        decay = min(1.0, (steps - step) / (0.2 * steps))  # of the learning rate, over the last fifth
        change = 0.2 * gradient / (np.sqrt(squares) + 1e-8) if optimizer == "adagrad" else 1.5 * gradient
        logits = logits - decay * change
        if step % (steps // 10) == 0:
            losses = np.logaddexp.reduce(logits, axis=1)[held_out[0]] - logits[held_out]
            yield {"step": step, "tokens": step * BATCH, "loss": losses.mean()}


# %% [markdown]
# The log is a table with the columns variant, scale, seed, step, tokens and loss. The two runs of a seed see the same examples, so they are a pair.


# %%
def log_rows(variant, **settings):
    """Return the rows of four runs that differ in the seed."""
    return [
        {"variant": variant, "scale": "bigram", "seed": seed, **row}
        for seed in range(4)
        for row in train(variant.partition("_")[0], seed, **settings)
    ]


rows = pl.DataFrame(log_rows("sgd") + log_rows("adagrad"))
rows.write_csv("logs.csv")
rows.tail(3)

# %% [markdown]
# `harness.open_curves` reads the file as `harness compare --curves` does. The logs do not say that the learning rate had decayed at the end, which a fair comparison needs, so that `decayed="last"` does. TensorBoard, W&B, MLflow, trackio and text logs are read as well: see [logs.md](../logs.md).

# %%
opened = harness.open_curves("logs.csv", control="sgd", decayed="last", unit="nats")
opened

# %% [markdown]
# There is no k: how many times as many tokens the control would need is not to be seen in logs of a single budget. A control that was trained twice as long shows it, and `horizon` names that control.

# %%
longer = pl.DataFrame(log_rows("sgd_long", steps=400))
pl.concat([rows, longer]).write_csv("logs.csv")
opened = harness.open_curves("logs.csv", control="sgd", decayed="last", unit="nats", horizon="sgd_long")
opened.pair("adagrad")

# %%
opened.figure("difference")

# %% [markdown]
# A log that cannot be compared is refused with one sentence.

# %%
try:
    harness.open_curves("logs.csv", control="sdg", decayed="last")
except harness.UserError as error:
    print(error)
