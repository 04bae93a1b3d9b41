"""Opens a source as training does: `python -m tests.data.scale.open_source FILE TOKENIZER [KEY=VALUE...]`.

It prints its seconds, its tokens and a hash of them as JSON. `hash=1` reads the tokens.
"""

import hashlib
import json
import sys
import time

from harness.config.schema.data import DataConfig, SourceConfig
from harness.data.open_data import open_data
from harness.data.text.corpus import TextCorpus


def main(path: str, tokenizer: str, values: dict[str, str]) -> None:
    config = DataConfig(
        "scale",
        {"own": SourceConfig(path, format=values.get("format"))},
        tokenizer=tokenizer,
        vocabulary=int(values["vocabulary"]) if "vocabulary" in values else None,
    )
    start = time.perf_counter()
    corpus = open_data(config)
    seconds = time.perf_counter() - start
    assert isinstance(corpus, TextCorpus)
    (domain,) = corpus.domains
    tokens, digest = domain.train.tokens, hashlib.sha256()
    if "hash" in values:
        for run in tokens.runs():
            digest.update(run.tobytes())
    print(json.dumps({"seconds": seconds, "tokens": len(tokens), "hash": digest.hexdigest()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], dict(word.split("=", 1) for word in sys.argv[3:]))
