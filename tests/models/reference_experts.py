"""Slow references of a mixture of experts in float64 numpy, by token, written without the package."""

import numpy as np

from tests.models.reference import sigmoid, swiglu


def mixture(top_k, capacity=None):
    """Output [T, D] of one layer, token by token; an expert that has had `capacity` tokens takes no more."""

    def layer(x_TD, w):
        out_TD, taken = np.zeros_like(x_TD), np.zeros(w["router"].shape[1], int)
        for at, x in enumerate(x_TD):
            score = sigmoid(x @ w["router"])
            ranked = score + w["bias"] if "bias" in w else score
            chosen = sorted(range(len(score)), key=lambda e: -ranked[e])[:top_k]
            for expert in chosen:
                taken[expert] += 1
                if capacity is None or taken[expert] <= capacity:
                    own = {name: w[name][expert] for name in ("gate", "up", "down")}
                    out_TD[at] += score[expert] / score[chosen].sum() * swiglu(x, own)
            if "shared.gate" in w:
                out_TD[at] += swiglu(x, {name: w[f"shared.{name}"] for name in ("gate", "up", "down")})
        return out_TD

    return layer
