"""Tokens of a source of text: opened from the cache, and built where they are not there.

An opening compares size, time and inode of each shard's files with the manifest, and takes no lock.
"""

from __future__ import annotations

from harness.core.cache.cache_entries import DAMAGED, print_note
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import damaged_shards, open_shards, read_manifest, shards_folder
from harness.data.shards.tokens_key import tokens_key
from harness.data.text.measure_source import measure_source
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import is_hashed
from harness.data.tokenizing.build_shards import BuildLimits, build_shards
from harness.data.tokenizing.draft import reopen_shards
from harness.data.tokens.tokens import Tokens


def is_tokenised(source: Source, encoding: Encoding) -> bool:
    """Return whether the tokens of a source lie in the cache. Reads no text."""
    return is_hashed(source) and read_manifest(tokens_key(source, encoding)) is not None


def open_tokens(source: Source, encoding: Encoding, limits: BuildLimits | None = None) -> Tokens:
    """Open the tokens of a source, building the shards that are missing or damaged. Raises UserError for bad
    text."""
    if is_hashed(source):
        key = tokens_key(source, encoding)
        if (tokens := _open(source, encoding, key)) is not None:
            return tokens
    sizes = measure_source(source, encoding, trained=False)
    text_bytes = sizes.train.bytes + sizes.heldout.bytes
    key = build_shards(source, encoding, text_bytes, limits or BuildLimits())
    manifest = read_manifest(key)
    assert manifest is not None
    return open_shards(key, manifest, encoding.codec.dtype)


def _open(source: Source, encoding: Encoding, key: str) -> Tokens | None:
    """Return the tokens of a key; None if there are none, or if shards are damaged, which is said."""
    manifest = read_manifest(key)
    if manifest is None:
        return None
    damaged = damaged_shards(key, manifest, encoding.codec.dtype)
    if not damaged:
        return open_shards(key, manifest, encoding.codec.dtype)
    print_note(f"{shards_folder(key)} {DAMAGED} ({', '.join(damaged)}); its text is tokenised again.")
    reopen_shards(source, encoding, key, damaged)
    return None
