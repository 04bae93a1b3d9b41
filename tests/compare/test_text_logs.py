"""Text logs of trainers: known by their lines, or read by an expression."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compare.foreign_logs import (
    NAME,
    RUNS,
    STEPS,
    assert_all_runs,
    loss,
    read,
    sentence,
)

TEXT = {
    "modded-nanogpt": "import torch\nprint0(f'step:{{step}} val_loss:{{val}}')\n"
    "step:{step}/40 val_loss:{loss:.4f} train_time:5ms step_avg:1.0ms\nstep:{step}/40 train_time:6ms\n",
    "nanoGPT": "iter {step}: loss 9.0, time 5ms\nstep {step}: train loss 9.0000, val loss {loss:.4f}\n",
    "llm.c": "s:{step} eval:0.3\ns:{step} trl:9.0 lr:0.000600 norm:1.0\ns:{step} tel:{loss:.4f}\n",
    "Megatron": " [2026-01-01] iteration {step:8d}/      40 | consumed samples: {step:12d} | learning rate: "
    "3.0E-04 | lm loss: 9.0E+00 |\n validation loss at iteration {step} | lm loss value: {loss:.6E} | lm "
    "loss PPL: 2.0E+01 |\n",
    "MaxText": "completed step: {step}, seconds: 1.0, total_weights: 9, loss: 9.000\n"
    "eval metrics after step: {step}, loss={loss:.4f}, total_weights=75264.0\n",
    "torchtitan": "[titan] 2026-01-01 - root - INFO - \x1b[31mstep: {step:2}  \x1b[32mloss:  9.0\x1b[39m\n"
    "[titan] - INFO - \x1b[33mvalidate step: {step:2}  \x1b[32mloss: {loss:7.4f}  \x1b[36mmemory: 1.00GiB\n",
}
"""Lines of each trainer, as its source prints them: training, then an evaluation."""


def write_text_logs(folder: Path, template: str) -> None:
    for variant, seed in RUNS:
        lines = [template.format(step=step, loss=loss(variant, seed, step)) for step in STEPS]
        (folder / f"{variant}_s_seed{seed}.log").write_text("".join(lines))


@pytest.mark.parametrize("trainer", TEXT)
def test_the_text_log_of_a_trainer_is_known_by_its_lines(tmp_path, trainer):
    write_text_logs(tmp_path, TEXT[trainer])
    logs = read(tmp_path, name=NAME, maps=["tokens=step*100"])
    assert_all_runs(logs, digits=4)
    assert logs.lines[0] == f"Read: 4 {trainer} logs in 4 places below {tmp_path}"


def test_values_of_training_lines_reach_the_next_evaluation(tmp_path):
    write_text_logs(tmp_path, TEXT["Megatron"])
    logs = read(tmp_path, name=NAME, maps=["tokens=consumed_samples*100"])
    assert_all_runs(logs, digits=4)
    assert logs.frame["learning_rate"].unique().to_list() == [3e-4]


def test_a_text_log_is_read_by_an_expression(tmp_path):
    write_text_logs(tmp_path, "update {step} tok={step}00 held-out={loss:.4f}\n")
    expression = r"update (?P<step>\d+) tok=(?P<tokens>\d+) held-out=(?P<loss>\S+)"
    assert_all_runs(read(tmp_path, name=NAME, lines=expression), digits=4)
    assert "has no evaluation (tried: modded-nanogpt, nanoGPT" in sentence(tmp_path, name=NAME)
    assert "names no loss. Put (?P<loss>...) around it" in sentence(tmp_path, lines=r"(?P<step>\d+)")
    assert "is no regular expression" in sentence(tmp_path, lines="(?P<step>")


def test_a_name_that_can_be_read_in_two_ways_is_refused(tmp_path):
    write_text_logs(tmp_path, TEXT["nanoGPT"])
    for file in [*tmp_path.iterdir()]:
        file.rename(file.with_name(f"my_{file.name}"))
    maps = ["tokens=step*100"]
    said = sentence(tmp_path, name=NAME, maps=maps)
    assert "can be read in two ways, variant=my or my_plain. Say what a place holds" in said
    logs = read(tmp_path, name="{variant}_{scale:[a-z]}_seed{seed}", maps=maps)
    assert sorted(logs.frame["variant"].unique()) == ["my_plain", "my_wide"]
    assert logs.frame["scale"].unique().to_list() == ["s"]
