"""`python -m tests.data.scale.encode_text FILE TOKENIZER`: encodes the documents of a text by the tokenizers
library with all cores, keeps nothing, and prints its seconds as JSON."""

import json
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer

from harness.data.documents.read_documents import END_OF_TEXT

BATCH = 512
"""Documents of a call: larger ones took as long."""

path, name = sys.argv[1:]
tokenizer = Tokenizer.from_file(name)
documents = Path(path).read_text().split(f"\n{END_OF_TEXT}\n")
start = time.perf_counter()
for first in range(0, len(documents), BATCH):
    tokenizer.encode_batch_fast(documents[first : first + BATCH], add_special_tokens=False)
print(json.dumps({"seconds": time.perf_counter() - start}))
