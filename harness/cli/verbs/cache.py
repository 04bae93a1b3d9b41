"""`harness cache`: show what the cache folder holds, or clear it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.verb_parser import VerbParser


def make_parser() -> VerbParser:
    """Build the parser of `harness cache`."""
    parser = VerbParser(
        "cache",
        "show what the cache folder holds and what for, or clear it",
        "harness cache",
        notes="The folder is $AB_HARNESS_CACHE, otherwise ~/.cache/ab-harness. A sweep removes what\n"
        "no command has used for 60 days, and the oldest compiled programs beyond 10 GiB.",
        uses_jax=False,
    )
    kinds = "remove these kinds of content; without a KIND all that can be made again"
    parser.add("--clear", "KIND", kinds, nargs="*")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the content of the cache, or what was cleared. Return the exit status."""
    kinds = make_parser().parse_args(arguments).clear
    from harness.core.cache.cache_dir import cache_root
    from harness.core.cache.cache_usage import KINDS, cache_usage, clear_cache
    from harness.core.number_format import format_bytes

    if kinds is not None:
        print(f"{cache_root()}: {format_bytes(clear_cache(kinds))} cleared")
        return 0
    usages = cache_usage()
    print(f"{cache_root()}: {format_bytes(sum(usage.bytes for usage in usages))}")
    for usage in usages:
        kind = KINDS[usage.kind]
        note = "" if kind.can_remake else " (kept by --clear unless named)"
        print(f"  {usage.kind:12} {format_bytes(usage.bytes):>9} {usage.entries:6}  {kind.purpose}{note}")
    return 0
