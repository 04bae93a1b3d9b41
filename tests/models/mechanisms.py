"""The mechanisms that every test of what all owe runs over: name and options."""

LOCAL = {"name": "window", "options": {"window": 4}}

MECHANISMS = {
    "mha": ("mha", {}),
    "gqa": ("gqa", {"kv_heads": 2}),
    "chunks-and-global": ("pattern", {"cycle": [LOCAL, {"name": "mha"}]}),
    "window-masked": ("window", {"window": 12}),
    "window-chunks": ("window", {"window": 4, "kv_heads": 2, "softcap": 2.0, "sinks": True}),
    "softcap": ("mha", {"softcap": 2.0}),
    "sinks": ("gqa", {"kv_heads": 2, "sinks": True}),
    "gated": ("gated", {"kv_heads": 2}),
    "nope": ("nope", {}),
    "mla": ("mla", {"latent": 6, "rotary": 2}),
    "gated_delta": ("gated_delta", {"chunk": 8}),
}

FEEDFORWARDS = {
    "bias": {"experts": 4},
    "auxiliary-shared": {"experts": 4, "top_k": 3, "shared": 2, "balance": "auxiliary", "balance_rate": 0.1},
    "capacity": {"experts": 4, "dispatch": "capacity", "capacity_factor": 1.0},
}
"""Options of `moe` that differ most; queues of an even load drop a good part of an untrained router's."""

OF_EACH = [
    {"name": "mla", "options": {"latent": 6, "rotary": 2}},
    {"name": "gated_delta", "options": {"chunk": 4}},
    {"name": "window", "options": {"window": 4, "kv_heads": 2, "softcap": 2.0, "sinks": True}},
]
"""One cycle of the mechanisms that differ most, so that one compilation tries them all."""
