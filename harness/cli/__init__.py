"""One command, `harness`, and its verbs. Each verb imports what it needs, when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.errors import UserError, did_you_mean, disk_error

if TYPE_CHECKING:
    from harness.compare.checkpoints.diff_types import CheckpointDiff

MISTAKE = 2


@dataclass(frozen=True)
class Verb:
    what: str
    example: str
    call: Callable[[Sequence[str]], int]
    details: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 if runs failed for good, 2 for a user's mistake, 130 when interrupted."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in VERBS:
        print(f"harness {name}: no such verb; {did_you_mean(name, VERBS)}", file=sys.stderr)
        return MISTAKE
    if any(each in ("-h", "--help") for each in rest):
        print(_help(name))
        return 0
    sys.path.insert(0, os.getcwd())  # as `python -m` does: users' mechanisms lie where they work
    try:
        return VERBS[name].call(rest)
    except UserError as error:
        print(error, file=sys.stderr)
        return MISTAKE
    except OSError as error:
        if (trouble := disk_error(error, name)) is None:
            raise
        print(trouble, file=sys.stderr)
        return MISTAKE


def _sweep(arguments: Sequence[str]) -> int:
    from harness.cli import hydra_main

    rest = [each for each in arguments if each != "--dry-run"]
    return hydra_main.main(["-m", *rest, *(["engine.dry_run=true"] if "--dry-run" in arguments else [])])


def _plan(arguments: Sequence[str]) -> int:
    from harness.cli.verbs.plan import plan

    return plan(arguments)


def _train(arguments: Sequence[str]) -> int:
    from harness.cli import hydra_main

    return hydra_main.main(["hydra.mode=RUN", *arguments])


def _compare(arguments: Sequence[str]) -> int:
    from harness.cli.verbs.compare import compare_command

    return compare_command(arguments)


def _diff(arguments: Sequence[str]) -> int:
    from harness.cli.verb_parser import VerbParser

    parser = VerbParser("harness diff", add_help=False)
    parser.add_argument("runs", nargs=2, metavar="RUN[@STEP]")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args(arguments)
    from harness.inspection.diff.diff_checkpoints import diff, picture_folder

    found = diff(*options.runs)
    _show_diff(found, as_json=options.json)
    if options.pictures:
        from harness.report.checkpoint_diff import write_diff_pictures

        for picture in write_diff_pictures(found, picture_folder(options.runs[0])):
            print(picture, file=sys.stderr)
    return 0


def _show_diff(found: CheckpointDiff, *, as_json: bool) -> None:
    if as_json:
        import json

        from harness.compare.results.to_json import to_json

        print(json.dumps(to_json(found), indent=2, sort_keys=True, allow_nan=False))
    else:
        from rich.console import Console

        from harness.report.checkpoint_diff import print_diff

        print_diff(found, Console())


def _verify(arguments: Sequence[str]) -> int:
    from harness.cli.verb_parser import VerbParser

    parser = VerbParser("harness verify", add_help=False)
    parser.add_argument("run", metavar="RUN[@STEP]")
    parser.add_argument("--steps", type=int, metavar="N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    from harness.cli.views.replay import replay_text
    from harness.inspection.replay.verify import verify

    found = verify(options.run, options.steps)
    print(replay_text(found, as_json=options.json))
    return 0 if found.same else 1


def _sample(arguments: Sequence[str]) -> int:
    from harness.cli.verb_parser import VerbParser

    parser = VerbParser("harness sample", add_help=False)
    parser.add_argument("run", metavar="RUN[@STEP]")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--per-label", type=int, default=4)
    parser.add_argument("--to", metavar="FILE.png")
    options = parser.parse_args(arguments)
    from harness.records.run.find_checkpoint import find_checkpoint

    if "channels" in find_checkpoint(options.run).provenance.facts.shape:
        from harness.inspection.sample_images import sample_images

        print(
            sample_images(
                options.run, options.to, options.per_label, options.guidance, options.steps, options.seed
            )
        )
        return 0
    from harness.inspection.sample_text import sample

    print(sample(options.run, options.prompt, options.tokens, options.temperature, options.seed))
    return 0


def _export(arguments: Sequence[str]) -> int:
    from harness.cli.verb_parser import VerbParser

    parser = VerbParser("harness export", add_help=False)
    parser.add_argument("run", metavar="RUN[@STEP]")
    parser.add_argument("--to", nargs=2, required=True, metavar=("FORMAT", "DIR"))
    options = parser.parse_args(arguments)
    from harness.inspection.export_hf import export

    print(export(options.run, *options.to))
    return 0


def _watch(arguments: Sequence[str]) -> int:
    from harness.cli.verbs.watch import watch_command

    return watch_command(arguments)


def _stop(arguments: Sequence[str]) -> int:
    from harness.launcher.stages.stop_sweep import stop_sweep
    from harness.records.sweep.find_sweep import find_sweep

    if len(arguments) != 1:
        raise UserError("harness stop SWEEP: one sweep directory, such as runs/attention")
    print(stop_sweep(find_sweep(arguments[0])))
    return 0


VERBS = {
    "sweep": Verb(
        "train every pair, compare, print the verdict, write the report; repeat it to continue",
        "harness sweep experiment=attention scale=xs,s seed=0,1,2",
        _sweep,
        "OVERRIDES as Hydra reads them: KEY=VALUE sets, KEY=a,b,c sweeps; conf/ holds what can be chosen.\n"
        "What is finished is not trained again. Exit status 0 whatever the verdict, 1 if runs failed.\n"
        "`harness sweep --cfg job OVERRIDES` prints the config of the first run instead.\n"
        "--dry-run           print every run's time, memory and disk, and who trains where and when;\n"
        "                    nothing is written or trained. engine.devices=N and\n"
        "                    engine.schedule=queue|static place the sweep on N devices",
    ),
    "plan": Verb(
        "what a sweep would take, here or on a machine that is described; trains nothing",
        "harness plan experiment=colossus2 roster=frontier cluster=colossus2",
        _plan,
        "OVERRIDES as for sweep. Each run's parameters, memory, layout and time, and what these rest on;\n"
        "whether the machine can feed them together; the smallest effect that the design resolves.\n"
        "cluster=NAME        conf/cluster/NAME.yaml says chips, links, failures, power; without one, this\n"
        "                    machine, placed as by sweep --dry-run\n"
        "roster=frontier     sizes that can only be planned\n"
        "evidence=RUNS       a finished sweep of pairs, 3 scales and 2 seeds at least: what it says of\n"
        "                    the runs without a sibling, and how far beyond it they lie\n"
        "--layouts           the layouts that were not chosen too, and why\n"
        "--compile TARGETS    what compilers say of each run's step, without its devices: abstract (lowered\n"
        "                    on a mesh of any size), cpu (compiled for simulated devices), cuda, tpu (by\n"
        "                    their own compilers: make plan-extras); abstract,cpu asks both\n"
        "--json              the same as JSON: runs, cluster, power, bets, layers\n"
        "--html              write SWEEP/report.html too, the plan in it, and SWEEP/plan.json, from which\n"
        "                    later reports of the sweep show it; else nothing is written\n"
        "--pictures          write SWEEP/plan.json and SWEEP/pictures/plan_*.png and *.svg too\n"
        "--accuracy         instead, without OVERRIDES: how good predictions of this machine's steps were,\n"
        "                    and what plans make of that\n"
        "--accuracy ROWS.csv  the same of published runs, each predicted without its source",
    ),
    "train": Verb(
        "train one run in this process",
        "harness train variant=hybrid scale=xs seed=1",
        _train,
        "The run lies in runs/<experiment_name>/<scale>/<variant>/seed<k>; the same command continues it.",
    ),
    "compare": Verb(
        "the verdict tables of a sweep, or of the curves of any trainer",
        "harness compare runs/attention --json",
        _compare,
        "SWEEP...            directories of sweeps, or URLs of them, such as s3://BUCKET/RUNS/SWEEP and\n"
        "                    zip://SWEEP::ALL.zip (docs/cluster.md: Runs that lie elsewhere)\n"
        "--curves FILE...    CSV or Parquet files instead, with the columns variant, scale, seed, step,\n"
        "                    tokens, loss (and, if known: domain, parameters, flops, decayed, branch)\n"
        "--control VARIANT   with --curves: what the others are compared with; else the first variant\n"
        "--json              the whole comparison as JSON\n"
        "--markdown          the verdict for a pull request\n"
        "--html              write SWEEP/report.html too (FILE.report.html beside the first FILE; of a URL\n"
        "                    NAME.report.html here)\n"
        "--pictures          write SWEEP/pictures/*.png and *.svg too (FILE.pictures/, NAME.pictures/)\n"
        "--require promote   exit status 1 unless a variant passes the gate; else 0 whatever the verdict",
    ),
    "diff": Verb(
        "what two checkpoints differ in: weights, function, loss of each example",
        "harness diff runs/attention/xs/mha/seed0 runs/attention/xs/hybrid/seed0@400",
        _diff,
        "RUN[@STEP]          a run's directory; without a step its newest good checkpoint\n"
        "--json              the whole comparison as JSON\n"
        "--pictures          write pictures/diff_*.png and *.svg into the sweep of the first run",
    ),
    "verify": Verb(
        "whether a run is bitwise the same when a stretch of it is made again",
        "harness verify runs/attention/xs/mha/seed0@100",
        _verify,
        "RUN[@STEP]          a run's directory, or a branch's; from its checkpoint at that step, or from\n"
        "                    its start (@0); without a step from the last but one checkpoint\n"
        "--steps N           so many steps; else to the next checkpoint\n"
        "--json              what was found as JSON\n"
        "Each step's loss, gradient norm and learning rate are compared bit by bit with the curve on disk,\n"
        "at a checkpoint the whole state and the examples read so far. Nothing is written into the run.\n"
        "Exit status 0 if all are equal, 1 if not.",
    ),
    "export": Verb(
        "the weights of a run for others' tools",
        "harness export runs/attention/xs/mha/seed0@400 --to hf exported/mha",
        _export,
        "RUN[@STEP]          a run's directory; without a step its newest good checkpoint\n"
        "--to hf DIR         a new folder that `transformers` reads: Llama's layout, Qwen3's with\n"
        "                    model.qk_norm, in float32; with the tokenizer, unless it is bytes",
    ),
    "sample": Verb(
        "text that a run writes, or images that it makes",
        'harness sample runs/attention/xs/mha/seed0 --prompt "Once upon a time" --tokens 200',
        _sample,
        "RUN[@STEP]          a run's directory; without a step its newest good checkpoint\n"
        "--prompt TEXT       what it goes on from; without one it begins a document\n"
        "--tokens N          at most so many more (100); it stops where the document ends\n"
        "--temperature T     0 takes the likeliest token each time; 1 (the default) draws as trained\n"
        "--seed K            of the draws (0)\n"
        "Of images, a grid with a column for each label:\n"
        "--to FILE.png       where it goes; else samples_<step>.png in the current folder\n"
        "--per-label N       images of each label (4)\n"
        "--guidance W        how much more of its label an image shows: 1 as trained (2)\n"
        "--steps N           from noise to image (50)",
    ),
    "watch": Verb(
        "a sweep live: runs at work, queue, failures, utilisation",
        "harness watch runs/attention",
        _watch,
        "It only reads, while another process drives; it leaves when the sweep is over, on q, or on Ctrl-C.\n"
        "--once              one picture, as where the output is no terminal; SWEEP may be a URL then",
    ),
    "stop": Verb(
        "every run of a sweep saves and leaves; the sweep command continues it",
        "harness stop runs/attention",
        _stop,
    ),
}


def _overview() -> str:
    lines = [
        "Trains two architectures side by side over a ladder of scales, and says which one to bet on.",
        "",
    ]
    for name, verb in VERBS.items():
        lines += [f"  {name:8} {verb.what}", f"           $ {verb.example}"]
    return "\n".join([*lines, "", "harness VERB --help says more."])


def _help(name: str) -> str:
    verb = VERBS[name]
    return "\n".join(
        filter(None, [f"harness {name}: {verb.what}", "", f"  $ {verb.example}", "", verb.details])
    )
