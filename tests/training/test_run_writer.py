"""What a lane writes of itself: its timeline follows its beats, its branches stand in it."""

from __future__ import annotations

from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.status import State, read_status
from harness.records.run.timeline import Timeline, read_timeline
from harness.training.output.run_writer import RunWriter


def told(run: RunDir) -> list[tuple[str, int, float]]:
    return [(entry.phase, entry.step, entry.share) for entry in read_timeline(run)]


def test_a_line_for_each_phase_and_none_for_a_beat(tmp_path):
    run = RunDir(tmp_path)
    journal = RunWriter(run, 10, 0, 1, Timeline(run, 1, 2))
    journal.heartbeat("compile")
    journal.set_phase("train")
    for step in range(1, 6):
        journal.heartbeat("train", step=step)
    journal.heartbeat("save")
    journal.end(State.finished)
    assert told(run) == [
        ("start", 0, 1), ("compile", 0, 1), ("train", 0, 1), ("save", 5, 1), ("end", 5, 1),
    ]  # fmt: skip
    assert (read_status(run).state, read_status(run).step) == (State.finished, 5)


def test_a_branch_stands_in_the_timeline_of_its_parent(tmp_path):
    run = RunDir(tmp_path)
    timeline = Timeline(run, 1, 1)
    journal, branch = RunWriter(run, 10, 0, 1, timeline), run.branch(0.5)
    journal.heartbeat("branch")
    of_branch = RunWriter(branch, 5, 4, 1, timeline, 0.5)
    of_branch.set_phase("train")
    of_branch.end(State.finished)
    journal.end(State.finished)
    assert told(run) == [("start", 0, 1), ("branch", 0, 1), ("train", 4, 0.5), ("end", 0, 1)]
    assert not branch.timeline.exists()


def test_a_run_that_is_opened_again_has_the_tokens_and_the_loss_of_its_curve(tmp_path):
    run = RunDir(tmp_path)
    row = dict.fromkeys(metrics.STEPS, 0) | {"flops": 0.0}
    rows = [row | {"step": step, "tokens": 10 * step, "loss": 1.0 / step} for step in (1, 2)]
    metrics.write_part(run, "steps", 0, 2, rows)
    journal = RunWriter(run, 2, 0, 2)
    journal.resume(2)
    journal.end(State.finished)
    status = read_status(run)
    assert (status.step, status.tokens, status.loss) == (2, 20, 0.5)


def test_a_run_lives_while_its_branch_trains_and_within_a_phase(tmp_path):
    run = RunDir(tmp_path)
    journal, branch = RunWriter(run, 10, 0, 1), run.branch(0.5)
    of_branch = RunWriter(branch, 5, 4, 1, None, 0.5, journal)
    signs = []
    for step in range(5):
        of_branch.heartbeat("train", step=step)
        signs.append((journal.status.progress, journal.status.activity))
    assert signs == [(step + 1, f"branch 50%: step {step} of 5") for step in range(5)]
    journal.report("reads weights, 3%")
    assert (journal.status.progress, journal.status.activity) == (6, "reads weights, 3%")
    journal.heartbeat("train")
    assert journal.status.activity == ""
