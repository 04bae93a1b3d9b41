"""Which rooms of the package may import which others, and the same inside the three largest rooms."""

_GROUND = {"core", "config"}

ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "config": {"core"},
    "records": _GROUND,
    "estimate": _GROUND | {"records"},
    "parallel": _GROUND,
    "models": _GROUND | {"parallel", "moved"},
    "data": _GROUND,
    "training": _GROUND | {"records", "estimate", "parallel", "models", "data"},
    "worker": _GROUND | {"records", "parallel", "models", "data", "training"},
    "compare": _GROUND | {"records"},
    "launcher": _GROUND | {"records", "estimate", "compare"},
    "aot": _GROUND | {"records", "parallel", "models", "data", "training", "worker"},
    "plan": _GROUND | {"records", "estimate", "compare", "aot", "report", "api"},
    "inspection": _GROUND | {"records", "compare", "parallel", "models", "data", "training", "worker"},
    "report": _GROUND | {"records", "compare"},
    "api": _GROUND | {"records", "report"},
    "trackers": _GROUND | {"records", "compare", "report"},
    "web": _GROUND | {"records", "compare", "report"},
    "cli": _GROUND
    | {"records", "estimate", "compare", "launcher", "plan", "aot", "inspection", "report", "trackers"}
    | {"worker", "web"},
    "train": {"cli"},
    "__main__": {"cli"},
    "extend": _GROUND | {"models", "data", "training"},
    "moved": set(),
    "__init__": {"core", "compare", "report", "api", "inspection", "moved"},
}
"""Rooms that each room may import. The last five are files at the top."""

SUB_ROOMS: dict[str, dict[str, set[str]]] = {
    "compare": {
        "stats": set(),
        "results": {"stats"},
        "inputs": {"stats", "results"},
        "checkpoints": {"stats", "results", "inputs"},
        "context": {"stats", "results", "inputs", "verdict"},
        "verdict": {"stats", "results", "inputs"},
        "": {"stats", "results", "inputs", "checkpoints", "context", "verdict"},
    },
    "data": {
        "tokens": set(),
        "documents": set(),
        "remote": {"documents"},
        "codecs": {"documents"},
        "text_sources": {"documents", "remote", "codecs"},
        "shards": {"tokens", "text_sources", "codecs"},
        "tokenizing": {"tokens", "documents", "codecs", "text_sources", "shards"},
        "formats": {"tokens", "documents", "codecs", "text_sources"},
        "order": {"tokens"},
        "text": {"tokens", "documents", "codecs", "text_sources", "shards", "tokenizing", "formats", "order"},
        "evaluation": {"tokens", "codecs", "text_sources", "formats", "order", "text"},
        "images": {"text_sources", "order", "text"},
        "": {
            "tokens",
            "remote",
            "codecs",
            "text_sources",
            "order",
            "text",
            "evaluation",
            "images",
            "formats",
        },
    },
    "launcher": {
        "cost": {""},
        "placement": {"", "cost"},
        "engines": {""},
        "workers": {"", "cost", "engines", "placement"},
        "stages": {"", "cost", "placement", "engines", "workers"},
        "": {"cost", "placement", "engines", "workers", "stages"},
    },
    "plan": {
        "calibration": set(),
        "compilers": {"", "calibration"},
        "extrapolation": {"", "calibration"},
        "allocation": {"", "calibration"},
        "": {"calibration", "compilers", "extrapolation", "allocation"},
    },
}
"""Sub-rooms that each sub-room may import inside its room. `""` stands for the files of the room itself."""
