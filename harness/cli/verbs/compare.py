"""`harness compare`: judge sweeps or logged curves, print the verdict, and write reports."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.json_output.json_text import json_text
from harness.cli.verb_parser import VerbParser
from harness.core.errors import UserError
from harness.core.paths import is_remote, local_path
from harness.records.sweep.find_sweep import read_sweep

if TYPE_CHECKING:
    from harness.compare.results.comparison import Comparison
    from harness.report.frames.sweep_frames import Frames


@dataclass(frozen=True)
class JudgedInput:
    """Comparison of one sweep or set of curves, with the inputs and the paths of its report."""

    comparison: Comparison
    provenance: Callable[[], dict[str, Any]]
    """Function that returns the JSON keys to add to the comparison."""
    frames: Callable[[], Frames]
    """Function that reads the data of the charts; called only if a report is requested."""
    page: Path
    pictures: Path


def make_parser() -> VerbParser:
    """Build the parser of `harness compare`."""
    parser = VerbParser(
        "compare",
        "print the verdict of a sweep, or of the curves of any trainer",
        "harness compare runs/attention --json",
        uses_jax=False,
    )
    urls = "s3://BUCKET/RUNS/SWEEP and zip://SWEEP::ALL.zip (docs/cluster.md: Runs behind a URL)"
    parser.add("sweeps", "SWEEP", f"directories of sweeps, or URLs such as {urls}", nargs="*")
    _add_log_options(parser)
    _add_question_options(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the whole comparison as JSON")
    form.add_argument("--markdown", action="store_true", help="print the verdict for a pull request")
    names = "FILE.report.html beside the first FILE; for a URL NAME.report.html here"
    parser.add_flag("--html", f"write SWEEP/report.html ({names})")
    parser.add_flag("--pictures", "write SWEEP/pictures/*.png and *.svg (FILE.pictures/, NAME.pictures/)")
    status = "exit status 1 unless a variant passes the gate; otherwise 0 whatever the verdict"
    parser.add_argument("--require", choices=["promote"], help=status)
    return parser


def _add_log_options(parser: VerbParser) -> None:
    """Add the options that say which files are read and how."""
    columns = "variant, scale, seed, step, tokens, loss"
    columns += " (and, if known: domain, parameters, flops, seconds, unit, decayed or learning_rate, branch)"
    files = f"tables instead (CSV, JSON lines, Parquet), with the columns {columns}; or logs of other tools: "
    files += "TensorBoard, W&B, MLflow, trackio, trainer_state.json, Neptune, text logs (docs/logs.md)"
    parser.add("--curves", "PATH", files, nargs="+")
    maps = "with --curves: columns by other names, such as loss=val_loss seed=run_id 'tokens=step*524288'"
    parser.add("--map", "COLUMN=NAME", maps, nargs="+", default=[])
    pattern = "with --curves: what the end of a path or run name says, such as '{variant}/{scale}-{seed}.csv'"
    parser.add("--name", "PATTERN", pattern)
    kept_loss = (
        "with --curves: which loss of a step counts that a resume logged twice (else they are refused)"
    )
    parser.add("--keep", "last|first", kept_loss, choices=["last", "first"])
    lines = (
        "with --curves: an evaluation in a text log: a regular expression with (?P<step>...), (?P<loss>...)"
    )
    parser.add("--lines", "REGEX", lines)
    rows = "with --curves: rows that count, such as split=val or 'step>=0' (=, !=, <, <=, >, >=)"
    parser.add("--filter", "COLUMN=VALUE", rows, nargs="+", default=[])
    decimals = "with --curves: the decimal mark, where other signs between digits part thousands"
    parser.add("--decimal", "comma|point", decimals, choices=["comma", "point"])
    words = "with --curves: words that stand for an empty cell, such as None or N/A"
    parser.add("--empty", "WORD", words, nargs="+", default=[])
    parser.add_flag("--skip-broken", "with --curves: leave out lines of a JSON lines file that are no JSON")


def _add_question_options(parser: VerbParser) -> None:
    """Add the options that say what is compared, and what is known beside the files."""
    parser.add(
        "--control", "VARIANT", "with --curves or --control-from: the control; otherwise the first one"
    )
    from_help = (
        "a sweep whose control (or --control) the variants of this one are compared with, by scale and seed"
    )
    parser.add("--control-from", "SWEEP", from_help)
    vouch = "with --curves: vouch that the learning rate had decayed at the last evaluation of each run"
    parser.add("--decayed", "last", vouch, choices=["last"])
    nats = "with --curves: margin of practical equivalence in the loss itself, which needs no slope"
    parser.add("--margin-nats", "NATS", nats, type=float)
    slopes = "with --curves: fall of the control's loss an e-fold of tokens, if the logs do not show it"
    parser.add("--slope", "NATS", slopes, type=float)
    amounts = (
        "with --curves: what the runs got equal amounts of, if not tokens; seconds without a column vouch"
    )
    parser.add("--match", "flops|seconds", amounts, choices=["flops", "seconds"])
    longer = "with --curves: the variant that is the control trained for another number of tokens: its slope"
    parser.add("--horizon", "VARIANT", longer)
    units = "nats (default), bits, perplexity, bits_per_byte, accuracy or higher_is_better"
    parser.add("--unit", "UNIT", f"with --curves: unit of the losses: {units}")


def run(arguments: Sequence[str]) -> int:
    """Return 0 whatever the verdict, or 1 if promotion was required and no variant passes the gate."""
    options = _parse_options(arguments)
    if options.curves:
        inputs = [_judge_curves(options)]
    else:
        inputs = [_judge_sweep(path, options) for path in options.sweeps]
    pages = [item.page for item, path in zip(inputs, options.sweeps, strict=False) if is_remote(path)]
    if (options.html or options.pictures) and len({*pages}) < len(pages):
        raise UserError(f"{pages[0]}: two sweeps have this report name; compare one sweep at a time")
    _print_comparisons(options, inputs)
    try:
        for item in inputs:
            _write_files(options, item)
    except OSError as error:
        raise UserError(
            f"{error.filename or inputs[0].page}: {error.strerror}; a report is written beside its sweep "
            "or curves, or into the current folder. Run this where you can write, or copy the input there."
        ) from error
    promoted = all(any(gate.promote for gate in item.comparison.gate or ()) for item in inputs)
    return int(options.require == "promote" and not promoted)


def _parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if bool(options.sweeps) == bool(options.curves):
        parser.error("give either sweeps or --curves FILE...")
    if options.control_from and len(options.sweeps) != 1:
        parser.error("--control-from goes with a sweep, one at a time")
    if options.control_from and (options.html or options.pictures):
        parser.error("--control-from prints the verdict alone: leave out --html and --pictures")
    if options.control and not (options.curves or options.control_from):
        parser.error("--control goes with --curves; the control of a sweep is fixed in its rule.json")
    names = ("decayed", "unit", "map", "name", "keep", "lines", "filter", "decimal", "empty", "skip_broken")
    for name in (*names, "margin_nats", "slope", "horizon", "match"):
        if getattr(options, name) and not options.curves:
            parser.error(f"--{name.replace('_', '-')} goes with --curves; a sweep records it")
    return options


def _judge_sweep(path: str, options: argparse.Namespace) -> JudgedInput:
    from harness.compare import compare
    from harness.compare.compare_sweeps import compare_with_control_of

    sweep = read_sweep(path)
    if options.control_from:
        comparison = compare_with_control_of(sweep, read_sweep(options.control_from), options.control)
    else:
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
    return JudgedInput(comparison, provenance, frames, sweep.report, sweep.pictures)


def _judge_curves(options: argparse.Namespace) -> JudgedInput:
    """Judge curves from files, after saying how they were understood. The report goes beside the first file,
    or here if that is remote."""
    from harness.compare.compare_curves import read_curve_inputs
    from harness.compare.inputs.importers.open_logs import LogReading, read_logs
    from harness.compare.judge import judge

    files = [_local_file(name) for name in options.curves]
    first = Path(files[0].name) if is_remote(options.curves[0]) else files[0]
    first = first if first.name else first.absolute()
    reading = LogReading.from_options(
        options.map, options.name, options.keep, options.lines, filters=options.filter,
        decimal=options.decimal, empty=options.empty, skip_broken=options.skip_broken,
    )  # fmt: skip
    logs = read_logs(files, reading)
    print(*logs.lines, sep="\n", file=sys.stderr if options.json or options.markdown else sys.stdout)
    evidence = read_curve_inputs(
        logs, control=options.control, experiment=first.stem, decayed=options.decayed, unit=options.unit,
        margin_nats=options.margin_nats, slope=options.slope, horizon=options.horizon,
        match=options.match,
    )  # fmt: skip
    comparison = judge(evidence)

    def frames() -> Frames:
        from harness.report.frames.log_frames import log_frames

        return log_frames(", ".join(options.curves), evidence.runs, comparison)

    return JudgedInput(
        comparison, dict, frames, *_files_beside(first if first.is_dir() else first.with_suffix(""))
    )


def _local_file(name: str) -> Path:
    """Return the path of a file, or of a copy of the file at a URL."""
    if not is_remote(name):
        return Path(local_path(name, ""))
    from harness.records.remote.local_copy import fetch_file

    return fetch_file(name)


def _files_beside(path: Path | str) -> tuple[Path, Path]:
    """Return the paths of the report and the pictures for an input that is not a folder here."""
    return Path(f"{path}.report.html"), Path(f"{path}.pictures")


def _print_comparisons(options: argparse.Namespace, inputs: Sequence[JudgedInput]) -> None:
    """Print as JSON (a list for several comparisons), as Markdown, or as tables."""
    if options.json:
        from harness.compare.results.to_json import to_json

        content = [to_json(item.comparison) | item.provenance() for item in inputs]
        output = content[0] if len(content) == 1 else content
        print(json_text("compare", output))
    elif options.markdown:
        from harness.report.tables.markdown import markdown

        print("\n".join(markdown(item.comparison) for item in inputs), end="")
    else:
        from rich.console import Console

        from harness.report.tables.terminal import print_comparison

        for item in inputs:
            print_comparison(item.comparison, Console())


def _write_files(options: argparse.Namespace, item: JudgedInput) -> None:
    """Write the requested files and print their paths to standard error."""
    if not (options.html or options.pictures):
        return
    from harness.report.charts.save_images import draw_pictures
    from harness.report.page.render import write_page  # the plotting stack costs a second to import

    frames = item.frames()
    if options.html:
        print(write_page(item.page, item.comparison, frames), file=sys.stderr)
    if options.pictures:
        print(*draw_pictures(item.comparison, frames, item.pictures), sep="\n", file=sys.stderr)
