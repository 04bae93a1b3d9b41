"""`harness list`: show the sweeps, and what the config has to choose from."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from harness.cli.verb_parser import VerbParser
from harness.core.errors import UserError, did_you_mean
from harness.core.paths import runs_path

SWEEPS, SEARCHPATH = "sweeps", "hydra.searchpath"
FIRST = (SWEEPS, "experiment", "variant", "scale")
"""Kinds that are listed if none is named."""


def make_parser() -> VerbParser:
    """Build the parser of `harness list`."""
    parser = VerbParser(
        "list",
        "list sweeps, experiments, variants, scales and other choices, with a line each",
        "harness list variants",
        "Own choices in conf/ of this folder are listed too, and those of hydra.searchpath=[file://FOLDER].\n"
        "runs=FOLDER lists the sweeps of another folder than runs/.",
        uses_jax=False,
    )
    kinds = "sweeps, or a group of the config: experiments, variants, scales, data, models, optimizers, ..."
    parser.add("words", "GROUP", kinds, nargs="*")
    parser.add_flag("--json", "print the list as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the lists. Return the exit status."""
    options = make_parser().parse_args(arguments)
    from harness.cli.verbs.list.listing import Listing, choice_lines, read_choice, sweep_lines
    from harness.config.variants.option_files import CONF_FOLDER, option_files, search_folders
    from harness.config.variants.question_files import QUESTIONS
    from harness.records.sweep.sweep_summary import list_sweeps

    overrides = [word for word in options.words if "=" in word]
    settings = dict(word.split("=", 1) for word in overrides)
    if unknown_keys := settings.keys() - {"runs", SEARCHPATH}:
        raise UserError(
            f"harness list {min(unknown_keys)}=...: only runs= and {SEARCHPATH}= say where to look"
        )
    groups = option_files(search_folders(overrides))
    kinds = [_kind(word, groups) for word in options.words if word not in overrides] or FIRST
    runs = Path(runs_path(settings.get("runs", "runs")))
    listing = Listing(
        tuple(list_sweeps(runs)) if SWEEPS in kinds else (),
        {
            group: tuple(read_choice(name, file) for name, file in files.items())
            for group, files in groups.items()
            if group in kinds
        },
    )
    if options.json:
        from harness.cli.json_output.json_text import json_text

        print(json_text("list", listing))
        return 0
    sections = {
        group: choice_lines(group, choices, (CONF_FOLDER, QUESTIONS))
        for group, choices in listing.choices.items()
    }
    if SWEEPS in kinds:
        sections[SWEEPS] = sweep_lines(listing.sweeps, runs, time.time())
    print("\n\n".join("\n".join(sections[kind]) for kind in dict.fromkeys(kinds)))
    if not options.words:
        print(f"\nOther kinds: {', '.join(sorted(groups.keys() - FIRST))}.")
    return 0


def _kind(word: str, groups: Collection[str]) -> str:
    """Return `sweeps` or the group of a kind, in the singular or the plural. Raises UserError."""
    kind = SWEEPS if word.removesuffix("s") == SWEEPS.removesuffix("s") else word
    kind = kind if kind in (SWEEPS, *groups) else kind.removesuffix("s")
    if kind not in (SWEEPS, *groups):
        raise UserError(f"harness list {word}: no such kind; {did_you_mean(word, (SWEEPS, *groups))}")
    return kind
