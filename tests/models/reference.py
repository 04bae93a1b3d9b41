"""Slow references in float64 numpy, written without the package: by head, by key, by token."""

import numpy as np


def rms_norm(x, gain, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * gain


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def rotated(x_K, position, base=10_000.0):
    half = len(x_K) // 2
    out = np.empty_like(x_K)
    for k in range(half):
        angle = position * base ** (-2 * k / len(x_K))
        out[k] = x_K[k] * np.cos(angle) - x_K[k + half] * np.sin(angle)
        out[k + half] = x_K[k + half] * np.cos(angle) + x_K[k] * np.sin(angle)
    return out


def mixed_by_softmax(query_K, keys, values, softcap=None, sink=None):
    """What one query makes of keys and values; a sink is a score without a value."""
    scores = [query_K @ key_K / np.sqrt(len(query_K)) for key_K in keys]
    scores = scores if softcap is None else [softcap * np.tanh(score / softcap) for score in scores]
    values = [*values] if sink is None else [*values, 0 * values[0]]
    weight = np.exp(scores if sink is None else [*scores, sink])
    return (weight / weight.sum()) @ np.array(values)


def softmax(window=None, turn=rotated, softcap=None):
    """Output [T, D] of one layer by softmax; gate and sink are there if their weights are."""

    def layer(x_TD, w):
        H, sharing = w["query"].shape[1], w["query"].shape[1] // w["key"].shape[1]
        out_TD = np.zeros_like(x_TD)
        for at in range(len(x_TD)):
            seen = range(0 if window is None else max(0, at - window + 1), at + 1)
            for head in range(H):
                query = turn(rms_norm(x_TD[at] @ w["query"][:, head], w["query_norm.gain"]), at)
                keys = [
                    turn(rms_norm(x_TD[s] @ w["key"][:, head // sharing], w["key_norm.gain"]), s)
                    for s in seen
                ]
                values = [x_TD[s] @ w["value"][:, head // sharing] for s in seen]
                mixed = mixed_by_softmax(
                    query, keys, values, softcap, w["sink"][head] if "sink" in w else None
                )
                if "gate" in w:
                    mixed = mixed * sigmoid(x_TD[at] @ w["gate"][:, head])
                out_TD[at] += mixed @ w["output"][head]
        return out_TD

    return layer


def latent(x_TD, w):
    """Output [T, D] of multi-head latent attention, equations 9 to 19 of arXiv:2405.04434."""
    out_TD, K = np.zeros_like(x_TD), w["key"].shape[2]
    c = [rms_norm(x @ w["latent"], w["latent_norm.gain"]) for x in x_TD]
    shared = [rotated(rms_norm(x @ w["shared_key"], w["key_norm.gain"]), t) for t, x in enumerate(x_TD)]
    for at in range(len(x_TD)):
        for head in range(w["query"].shape[1]):
            query = rms_norm(x_TD[at] @ w["query"][:, head], w["query_norm.gain"])
            query = np.concatenate([query[:K], rotated(query[K:], at)])
            keys = [np.concatenate([c[s] @ w["key"][:, head], shared[s]]) for s in range(at + 1)]
            values = [c[s] @ w["value"][:, head] for s in range(at + 1)]
            out_TD[at] += mixed_by_softmax(query, keys, values) @ w["output"][head]
    return out_TD


def gated_delta(x_TD, w):
    """Output [T, D] of the gated delta rule as a recurrence, equation 10 of arXiv:2412.06464."""
    out_TD = np.zeros_like(x_TD)
    for head in range(w["query"].shape[1]):
        state = np.zeros((w["value"].shape[2], w["key"].shape[2]))
        for at, x in enumerate(x_TD):
            query, key, value = (silu(x @ w[name][:, head]) for name in ("query", "key", "value"))
            query, key = (each / np.sqrt((each**2).sum() + 1e-6) for each in (query, key))
            step = np.log1p(np.exp(x @ w["step"][:, head] + w["step_bias"][head]))
            alpha, beta = np.exp(-np.exp(w["rate"][head]) * step), sigmoid(x @ w["share"][:, head])
            state = alpha * state @ (np.eye(len(key)) - beta * np.outer(key, key)) + beta * np.outer(
                value, key
            )
            answer = rms_norm(state @ query, w["norm.gain"]) * silu(x @ w["gate"][:, head])
            out_TD[at] += answer @ w["output"][head]
    return out_TD


def swiglu(x_TD, w):
    return (silu(x_TD @ w["gate"]) * (x_TD @ w["up"])) @ w["down"]


def logits(params, tokens_T, layers, feedforward=swiglu):
    """Logits [T, V] of a model; one function (x [T, D], weights) -> [T, D] a layer, one for all after it."""
    params = {path: np.asarray(array, np.float64) for path, array in params.items()}
    x_TD = params["embedding"][tokens_T]
    for index, layer in enumerate(layers):
        start = f"layers.{index}."
        own = {path.removeprefix(start): array for path, array in params.items() if path.startswith(start)}
        mechanism = {path.removeprefix("attention."): array for path, array in own.items()}
        x_TD = x_TD + layer(rms_norm(x_TD, own["attention_norm.gain"]), mechanism)
        normed_TD = rms_norm(x_TD, own["feedforward_norm.gain"])
        within = {path.removeprefix("feedforward."): array for path, array in own.items()}
        x_TD = x_TD + feedforward(normed_TD, within)
    return rms_norm(x_TD, params["norm.gain"]) @ params["embedding"].T
