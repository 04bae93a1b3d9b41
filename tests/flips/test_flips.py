"""The quick form of `make test-flips`: bits of a stored sweep, and what its comparison says of each."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.flips import commands
from tests.flips.judging import Outcome, judge_comparison, weigh
from tests.flips.kinds import KINDS, Flip, draw_flips
from tests.flips.masters import PAIR, Master
from tests.flips.table import table
from tests.golden.support import give_other_code, unpack

GOLDEN = Master("golden", ())
FLIPS = 60


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder of the stored sweep, and what its comparison says."""
    folder = unpack(tmp_path_factory.mktemp("golden"))
    return folder, commands.compare(GOLDEN.sweep(folder))


def test_no_flipped_bit_gives_another_verdict_without_a_word(stored):
    folder, calm = stored
    sweep = GOLDEN.sweep(folder)
    kinds = [dataclasses.replace(kind, master=GOLDEN) for kind in KINDS if kind.master is PAIR]
    kinds = [kind for kind in kinds if kind.files(sweep.path)]
    outcomes = []
    for flip in draw_flips(folder, kinds, FLIPS, random.Random(1)):
        whole = (sweep.path / flip.file).read_bytes()
        flip.strike(sweep.path)
        outcomes.append(Outcome(flip))
        judge_comparison(outcomes[-1], sweep, calm)
        (sweep.path / flip.file).write_bytes(whole)
    print(table(outcomes))
    assert [(str(outcome.flip), outcome.faults) for outcome in outcomes if outcome.faults] == []
    told = {outcome.flip.kind.name for outcome in outcomes if outcome.told}
    assert told >= {"sweep: rule", "run: provenance", "run: status", "run: evaluations"}


def test_another_number_without_a_word_is_seen(stored):
    folder, calm = stored
    sweep = GOLDEN.sweep(folder)
    run = next(iter(sweep.runs()))
    whole = run.run.read_bytes()
    give_other_code(run.path)  # sealed again, as no flipped bit is
    outcome = Outcome(Flip(KINDS[0], run.run.relative_to(sweep.path).as_posix(), 0, 0))
    judge_comparison(outcome, sweep, calm)
    run.run.write_bytes(whole)
    assert outcome.faults == ["compare: other numbers without a word"]


def test_a_sentence_that_is_there_without_the_flip_is_no_word(stored):
    _, calm = stored
    outcome = Outcome(Flip(KINDS[0], "xs/mha/seed0/run.json", 0, 0))
    sentence = commands.fold("xs/mha/seed0: run.json is damaged")
    said = dataclasses.replace(calm, lines=calm.lines | {sentence})
    weigh(outcome, "compare", said, said, same=False)
    assert (outcome.told, len(outcome.faults)) == ([], 1)
    weigh(outcome, "compare", said, calm, same=False)
    assert (outcome.told, len(outcome.faults)) == ([f"compare: {sentence}"], 1)
