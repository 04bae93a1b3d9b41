"""Provenance of a run, `run.json`: its config, code, data and package versions."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.config.run_identity import identity
from harness.config.schema.run import Config
from harness.config.users_modules import source_paths
from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.core.hashing import hash_json
from harness.records.paths import RunDir
from harness.records.typed_values import fields_fit, parse_record

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


@dataclass(frozen=True)
class SourceFacts:
    """Files and sizes of a source of data when its run was described."""

    content: str
    """Hash of the documents or images and their order."""
    files: int
    documents: int
    """Number of documents or images, with held-out ones."""
    train_tokens: int
    """Number of training tokens; of images, of training patches."""
    is_estimate: bool
    """True if the tokens were estimated from a sample of the text."""
    heldout_share: float
    """Share of the text or the images that is held out."""
    split: str
    """`documents` if whole documents or images are held out, `tails` if the end of each document is."""
    skipped: list[str]
    """Phrases that name what lies in the folder and is not read."""
    digests: dict[str, str]
    """First digits of the sha256 of each file by its path in the source; empty for many files."""
    is_sampled: bool = False
    """True if nobody had read the source yet: its sizes were estimated from a sample."""
    packed_rows: int | None = None
    """Number of rows of packed documents; None: they were not packed, or not tokenised yet."""
    padding: float | None = None
    """Share of the places of packed rows that hold no token."""
    cut_documents: int | None = None
    """Number of documents that are longer than a packed row, and therefore cut."""


@dataclass(frozen=True)
class SetFacts:
    """Files and sizes of a validation set when its run was described."""

    content: str
    """Hash of the documents and their order."""
    files: int
    tokens: int
    """Number of tokens that are evaluated."""
    available: int
    """Number of tokens of the whole set."""
    is_estimate: bool
    """True if the set was not tokenised or not compared yet, so that these numbers are estimated."""
    ngram: int
    """Length of the n-grams by which the set was compared with the training text; 0: it was not."""
    left_out_share: float | None
    """Share of its windows that stand in the training text and are left out; None: it was not known."""
    touched_share: float | None
    """Share of its windows that have any n-gram in common with the training text; None: it was not known."""

    @property
    def contamination(self) -> str:
        """Phrase for how much of the set stands in the training text."""
        if not self.ngram:
            return "not compared with the training text"
        if self.left_out_share is None or self.touched_share is None:
            return "how much of it stands in the training text is not known yet"
        return (
            f"{_percent(self.left_out_share)} of its windows stand in the training text and are left out, "
            f"{_percent(self.touched_share)} have any n-gram of {self.ngram} tokens in common with it"
        )


@dataclass(frozen=True)
class MetricFacts:
    """Facts about a metric of a run's own."""

    at: str
    """`step` or `evaluation`."""
    unit: str = ""
    better: str | None = None
    """`lower` or `higher`; None: neither."""


@dataclass(frozen=True)
class Facts:
    """Description of one config by `harness.worker.describe`: all that other rooms know about a model."""

    parameters: int
    non_embedding: int
    embedding: int
    shape: dict[str, int]
    """Model dimensions: width, layers, heads, ffn, head_width, vocabulary; for images also height, breadth,
    channels and patch."""
    flops_per_token: float
    """Model FLOPs per trained token: 6 per active parameter, plus causal attention."""
    executed_flops_per_token: float
    """FLOPs per trained token that the code executes."""
    paths: dict[str, list[int]]
    """Shape of each parameter, by path."""
    state_bytes: int
    """Bytes of parameters, gradients and optimizer state."""
    activation_bytes: int
    """Estimated bytes that the forward pass keeps for the backward pass."""
    steps: int
    tokens_per_step: int
    data_fingerprint: str
    """Hash of the training data: content of the sources, tokenizer, sequence length, hold-out, mixes."""
    eval_fingerprint: str
    """Hash of the held-out tokens."""
    end_token: int | None = None
    """Token that ends a document."""
    cache_bytes: float = 0.0
    """Bytes of the decoding cache (KV cache) of one full-length sequence; 0: not described."""
    draws: dict[str, int] = field(default_factory=dict)
    """Number of examples that the run takes from each source. The data seed fixes the order of a source, so
    of two runs the one that takes fewer takes the first examples of the other."""
    mixes: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """First step of each mix, and its examples per source in 4096. Two runs with one data seed read the same
    batches as long as their mixes agree."""
    base: dict[str, Any] | None = None
    """Parent checkpoint, {"run", "name", "step", "identity", "checksum"}; None if parameters are drawn."""
    trainable: int = 0
    """Number of trainable parameters of a fine-tuned run; 0 for a run without a parent."""
    active_parameters: int = 0
    """Number of non-embedding parameters that one token uses; 0: not described."""
    weight_bytes: int = 0
    """Bytes of the parameters, a part of `state_bytes`; 0: not described, and 4 each."""
    gradient_bytes: int = 0
    """Bytes of the gradients, a part of `state_bytes`; 0: not described, and 4 each."""
    loss_unit: str = "nats a token"
    splits: dict[str, int] = field(default_factory=dict)
    """Number of parameters by the mesh axes that split them, such as `fsdp tensor`; empty: not described."""
    fp8_parameters: int = 0
    """Number of parameters of weights whose products have 8-bit factors."""
    saved_scores: float = 0.0
    """Attention scores of one token in all layers that the backward pass keeps; fused kernels keep none."""
    scanned: bool = False
    """True if the layers are one loop over stacked parameters."""
    divisors: dict[str, int] = field(default_factory=dict)
    """Number that the size of each mesh axis must divide, besides the batch; empty: not described."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer; empty for images, and if it is not described."""
    sources: dict[str, SourceFacts] = field(default_factory=dict)
    """Sources by name; empty: not described."""
    kernels: list[str] = field(default_factory=list)
    """Phrase for each kernel of attention and experts, such as `attention: cuDNN`; empty: not described."""
    ends_decayed: bool = True
    """True if the learning rate has decayed at the end, and where it was not described, since evaluations
    record it too."""
    metrics: dict[str, MetricFacts] = field(default_factory=dict)
    """Metrics of the run's own by name."""
    rows: int = 0
    """Number of rows of embedding and head: the vocabulary, and rows that are no token; 0: not described."""
    row: list[int] = field(default_factory=list)
    """Shape of an example of data of a user's own; empty for text and images."""
    row_dtype: str = "int32"
    """Dtype of the examples."""
    sets: dict[str, SetFacts] = field(default_factory=dict)
    """Validation sets by name."""

    @property
    def table_rows(self) -> int:
        """Number of rows of embedding and head: the vocabulary, and rows that are no token."""
        return self.rows or self.paths.get("embedding", [self.shape["vocabulary"]])[0]

    @property
    def has_images(self) -> bool:
        """True if the examples are images."""
        return "channels" in self.shape

    @property
    def has_unread_sources(self) -> bool:
        """True if sizes and content of a source are estimated, since nobody has read it yet, or if a set was
        not compared with the training text yet."""
        has_unread_set = any(facts.is_estimate for facts in self.sets.values())
        return has_unread_set or any(source.is_sampled for source in self.sources.values())

    @property
    def is_known(self) -> bool:
        """True for a model whose layers the harness knows; false for a whole model of a user's own."""
        return "layers" in self.shape

    def __post_init__(self) -> None:
        """Parse sources, sets and metrics that come from JSON. Raises TypeError if they are malformed."""
        for name, kind in (("sources", SourceFacts), ("sets", SetFacts), ("metrics", MetricFacts)):
            if isinstance(content := getattr(self, name), dict):
                parsed = {key: _parse(kind, value) for key, value in content.items()}
                object.__setattr__(self, name, parsed)


@dataclass(frozen=True)
class Provenance:
    """Content of `run.json`, written by the launcher before the first step."""

    identity: str
    config_hash: str
    code_hash: str
    experiment: str
    scale: str
    variant: str
    seed: int
    data_seed: int
    parameters: int
    tokens: int
    facts: Facts
    versions: dict[str, str]
    touches: list[str] = field(default_factory=list)
    parent: dict | None = None
    """Parent of a branch, {"run", "step", "share"}; None for a run."""
    surroundings: list[dict[str, Any]] = field(default_factory=list)
    """Environments of the workers (records.run.environment), each valid from its `step` on; may be empty."""


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _parse(
    kind: type[SourceFacts | SetFacts | MetricFacts], content: Any
) -> SourceFacts | SetFacts | MetricFacts:
    record = content if isinstance(content, kind) else parse_record(kind, content)
    if record is None:
        raise TypeError(f"a record of {kind.__name__} is malformed")
    return record


def identity_of(config: Config, facts: Facts) -> str:
    """Return the identity of a run: a hash of its config and of the content of its parent checkpoint."""
    config_identity = identity(config)
    return hash_json([config_identity, facts.base["checksum"]]) if facts.base else config_identity


def write_provenance(run: RunDir, record: Provenance) -> None:
    """Write `run.json` with a checksum."""
    write_checksummed_json(run.run, dataclasses.asdict(record))


def read_provenance(run: RunDir) -> Provenance | None:
    """Return the provenance; None if the file is missing, damaged or of another version."""
    content = read_checksummed_json(run.run)
    if content is None:
        return None
    try:
        fields: dict[str, Any] = {**content, "facts": Facts(**content["facts"])}
        record = Provenance(**fields)
    except (TypeError, KeyError):
        return None
    is_typed = fields_fit(record) and fields_fit(record.facts)
    return record if is_typed and isinstance((record.parent or {"step": 0}).get("step"), int) else None


@functools.cache
def package_versions() -> dict[str, str]:
    """Return the package versions of this process, cached because a sweep asks once per run."""
    return {name: metadata.version(name) for name in PACKAGES}


def code_hash_at(code_hash: str, step: int) -> str:
    """Return the code hash of the update after a step. `code_hash` may be `HASH@STEP+HASH` after a drift."""
    for part in code_hash.split("+"):
        code, _, until = part.partition("@")
        if not until.isdecimal() or step < int(until):
            return code
    return ""


TRAINING = ("config", "core", "data", "models", "parallel", "records", "training", "worker")
"""Rooms of the harness that trained numbers depend on; other changes must not restart a run."""


@functools.cache
def code_hash(*extra: Path) -> str:
    """Return the sha256 over the Python files of the TRAINING rooms and of users, by relative path."""
    home = Path(__file__).parents[2]
    total = hashlib.sha256()
    for root in (*(home / part for part in TRAINING), *extra):
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            total.update(str(path.relative_to(root.parent)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def code_hash_of(config: Config) -> str:
    """Return the code hash of a run: the harness, the modules of its config, and what they import."""
    return code_hash(*source_paths(config.imports))
