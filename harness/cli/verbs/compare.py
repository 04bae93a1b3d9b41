"""The verb `compare`: what is judged, how it is said, and where its report goes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.verb_parser import VerbParser
from harness.core.errors import UserError
from harness.core.paths import is_remote, local_path
from harness.records.sweep.find_sweep import read_sweep

if TYPE_CHECKING:
    from harness.compare.results.comparison import Comparison
    from harness.report.frames.sweep_frames import Frames


@dataclass(frozen=True)
class JudgedInput:
    """A comparison with what its report is drawn from (read only if one is asked for) and where it goes."""

    comparison: Comparison
    provenance: Callable[[], dict[str, Any]]
    """What JSON says of it beside the comparison."""
    frames: Callable[[], Frames]
    page: Path
    pictures: Path


def compare_command(arguments: Sequence[str]) -> int:
    """Exit status 0 whatever the verdict; 1 if promotion was required and nothing passes the gate."""
    options = _parse_options(arguments)
    inputs = [_judge_curves(options)] if options.curves else [_judge_sweep(path) for path in options.sweeps]
    _check_distinct_pages(options, inputs)
    _print_comparisons(options, inputs)
    try:
        for item in inputs:
            _write_files(options, item)
    except OSError as error:
        raise UserError(
            f"{error.filename or inputs[0].page}: {error.strerror}; a report goes beside what it is about, "
            "or into the current folder: go, or copy that, where there is room and leave to write"
        ) from error
    return int(options.require == "promote" and not all(_promotes(each.comparison) for each in inputs))


def _parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = VerbParser("harness compare", add_help=False)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP")
    parser.add_argument("--curves", nargs="+", metavar="FILE")
    parser.add_argument("--control", metavar="VARIANT")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--markdown", action="store_true")
    parser.add_argument("--html", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--require", choices=["promote"])
    options = parser.parse_args(arguments)
    if bool(options.sweeps) == bool(options.curves):
        parser.error("name sweeps or --curves FILE..., one of the two")
    if options.control and not options.curves:
        parser.error("--control goes with --curves; the control of a sweep is fixed in its rule.json")
    return options


def _check_distinct_pages(options: argparse.Namespace, inputs: Sequence[JudgedInput]) -> None:
    """Raises UserError where sweeps of one name, from several places, would write one over the other."""
    pages = [item.page for item, path in zip(inputs, options.sweeps, strict=False) if is_remote(path)]
    if (options.html or options.pictures) and len({*pages}) < len(pages):
        raise UserError(f"{pages[0]}: two reports of this name would go here; compare one sweep at a time")


def _judge_sweep(path: str) -> JudgedInput:
    from harness.compare import compare

    sweep = read_sweep(path)
    comparison = compare(sweep)

    def frames() -> Frames:
        from harness.report.frames.sweep_frames import read_frames

        return read_frames(sweep, comparison)

    def provenance() -> dict[str, Any]:
        from harness.compare.context.lineage import sweep_provenance
        from harness.compare.results.to_json import to_json

        return {"provenance": to_json(sweep_provenance(sweep, comparison))}

    if is_remote(path):
        return JudgedInput(comparison, provenance, frames, *_files_beside(sweep.path.name))
    return JudgedInput(comparison, provenance, frames, sweep.report, sweep.path / "pictures")


def _judge_curves(options: argparse.Namespace) -> JudgedInput:
    """Curves from files; what is written goes beside the first of them, or here where that is remote."""
    from harness.compare.compare_curves import read_curve_inputs
    from harness.compare.judge import judge

    files = [_local_file(name) for name in options.curves]
    first = Path(files[0].name) if is_remote(options.curves[0]) else files[0]
    evidence = read_curve_inputs(files, control=options.control, experiment=first.stem)
    comparison = judge(evidence)

    def frames() -> Frames:
        from harness.report.frames.log_frames import log_frames

        return log_frames(", ".join(options.curves), evidence.runs, comparison)

    return JudgedInput(comparison, dict, frames, *_files_beside(first.with_suffix("")))


def _local_file(name: str) -> Path:
    """A file, or the copy of one behind a URL."""
    if not is_remote(name):
        return Path(local_path(name, ""))
    from harness.records.remote.local_copy import fetch_file

    return fetch_file(name)


def _files_beside(path: Path | str) -> tuple[Path, Path]:
    """Where the report and the pictures go of what is no folder that could hold them."""
    return Path(f"{path}.report.html"), Path(f"{path}.pictures")


def _print_comparisons(options: argparse.Namespace, inputs: Sequence[JudgedInput]) -> None:
    comparisons = [item.comparison for item in inputs]
    if options.json:
        _print_json(inputs)
    elif options.markdown:
        from harness.report.tables.markdown import markdown

        print("\n".join(map(markdown, comparisons)), end="")
    else:
        _print_tables(comparisons)


def _print_json(inputs: Sequence[JudgedInput]) -> None:
    """One object for one comparison, a list for several; of a sweep with its provenance."""
    from harness.compare.results.to_json import to_json

    content = [to_json(item.comparison) | item.provenance() for item in inputs]
    output = content[0] if len(content) == 1 else content
    print(json.dumps(output, indent=2, sort_keys=True, allow_nan=False))


def _print_tables(comparisons: Sequence[Comparison]) -> None:
    from rich.console import Console

    from harness.report.tables.terminal import print_comparison

    for comparison in comparisons:
        print_comparison(comparison, Console())


def _write_files(options: argparse.Namespace, item: JudgedInput) -> None:
    """The files that were asked for; where they are goes to standard error."""
    if not (options.html or options.pictures):
        return
    from harness.report.charts.save_images import draw_pictures
    from harness.report.page.render import write_page  # the plotting stack costs a second to import

    say, frames = partial(print, file=sys.stderr), item.frames()
    if options.html:
        say(write_page(item.page, item.comparison, frames))
    if options.pictures:
        say(*draw_pictures(item.comparison, frames, item.pictures), sep="\n")


def _promotes(comparison: Comparison) -> bool:
    return any(result.promote for result in comparison.gate or ())
