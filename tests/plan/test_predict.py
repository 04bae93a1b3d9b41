"""`predict` end to end: what it answers, and what it refuses."""

import dataclasses

import pytest

from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.estimate.memory import MEMORY_LIMIT
from harness.estimate.precision import FP8
from harness.plan import EvidenceKind, Layout, load_cluster, predict
from tests.plan.shapes import KIMI_LIKE, frontier, llama

LLAMA_LAYOUT = Layout(data=128, tensor=8, pipeline=16, virtual=4)


def llama_126():
    """Sixteen stages do not divide 126 layers: those that trained it took two layers off the ends."""
    return dataclasses.replace(llama(), layers=128)


def test_llama_3_as_it_was_trained():
    # 41 % model FLOPs utilisation on 16,384 H100, 8,192 tokens a sequence (arXiv:2407.21783, table 4): not in
    # the table that anything was fitted to.
    found = predict(llama_126(), load_cluster("h100_16k"), LLAMA_LAYOUT)
    assert found.devices == 16_384
    assert found.mfu.low < 0.41 < found.mfu.high
    assert found.days is not None
    assert found.days.value == pytest.approx(found.step_seconds.value * 15e12 / 2048 / 8192 / 86_400)


def test_every_number_names_its_evidence_and_holds_its_value():
    found = predict(llama_126(), load_cluster("h100_16k"), LLAMA_LAYOUT)
    numbers = [found.parameters, found.step_seconds, found.mfu, found.tokens_per_second, found.days]
    for each in (*numbers, *found.memory.values()):
        assert each.low <= each.value <= each.high
    assert found.parameters.evidence is found.memory["weights"].evidence is EvidenceKind.closed_form
    assert found.step_seconds.evidence is EvidenceKind.analytic
    assert sum(found.terms.values()) == pytest.approx(found.step_seconds.value)


def test_the_best_layout_beats_every_other_that_is_shown_and_fits():
    found = predict(llama(), load_cluster("h100_16k"))
    choice = found.choice
    assert choice is not None
    assert found.fits
    assert found.devices <= 16_384
    assert [each.seconds for each in choice.runners_up] == sorted(each.seconds for each in choice.runners_up)
    assert choice.best.seconds <= choice.runners_up[0].seconds
    assert all("slower" in each.why for each in choice.runners_up)
    for lost in choice.rejected:
        fits = lost.bytes <= found.memory_limit
        assert fits or lost.why.startswith("does not fit")
        assert lost.seconds >= choice.best.seconds or not fits


def test_the_search_agrees_with_asking_for_its_answer():
    found = predict(llama(), load_cluster("h100_16k"))
    again = predict(llama(), load_cluster("h100_16k"), found.layout)
    assert again.step_seconds == found.step_seconds
    assert again.memory == found.memory


def test_more_memory_never_makes_the_best_slower():
    cluster = load_cluster("h100_16k")
    part = cluster.partition()
    roomy = dataclasses.replace(part, chip=dataclasses.replace(part.chip, memory=4 * part.chip.memory))
    wide = dataclasses.replace(cluster, partitions=(roomy,))
    model = dataclasses.replace(KIMI_LIKE, batch=2048)
    assert predict(model, wide).step_seconds.value <= predict(model, cluster).step_seconds.value


def test_eight_bits_are_faster_but_not_twice():
    cluster = load_cluster("h100_16k")
    wide = predict(llama_126(), cluster, LLAMA_LAYOUT).step_seconds.value
    narrow = predict(
        dataclasses.replace(llama_126(), precision=FP8), cluster, LLAMA_LAYOUT
    ).step_seconds.value
    assert 1.1 < wide / narrow < 1.7


def test_what_fits_nowhere_says_by_how_much():
    with pytest.raises(UserError, match=r"10t fits nowhere on 8 x H100-80G: .* needs [\d.]+ TiB a device"):
        predict(frontier()[5], load_cluster("h100x8"))


def test_a_layout_that_does_not_fit_is_still_answered():
    found = predict(llama(), load_cluster("h100x8"), Layout(tensor=8, remat=Remat.full))
    assert not found.fits
    assert found.memory_limit == pytest.approx(MEMORY_LIMIT * 80e9, rel=0.01)
    assert found.step_seconds.value > 0


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"layout": Layout(tensor=7)}, "tensor = 7 does not divide heads"),
        ({"layout": Layout(data=2048, tensor=16)}, "asks for 32768 devices; h100 has 16384"),
        ({"kind": "gb200"}, "but not 'gb200'"),
        ({"cluster": None}, "needs a cluster"),
    ],
)
def test_what_cannot_be_is_one_sentence(asked, named):
    asked = {"cluster": load_cluster("h100_16k"), **asked}
    with pytest.raises(UserError, match=named):
        predict(llama(), **asked)


def test_a_published_row_is_predicted_by_its_columns():
    row = {
        "id": "mine",
        "model": "GPT 175B",
        "params_B": "175",
        "layers": "96",
        "d_model": "12288",
        "heads": "96",
        "vocab": "51200",
        "seq": "2048",
        "batch_seqs": "1536",
        "chips": "1024",
        "chip": "A100-80G",
        "peak_tflops_bf16": "312",
        "precision": "bf16",
        "tp": "8",
        "pp": "8",
        "remat": "selective",
    }
    found = predict(row)
    assert found.layout == Layout(data=16, tensor=8, pipeline=8, virtual=2, remat=Remat.dots)
    assert found.parameters.value == 175e9
    assert 0.35 < found.mfu.value < 0.65
    bare = predict({key: row[key] for key in ("id", "params_B", "batch_seqs", "chips", "chip")})
    assert bare.choice is not None
    spread = [each.step_seconds.high / each.step_seconds.value for each in (found, bare)]
    assert spread[1] > spread[0]
    assert any("layers: not given" in note for note in bare.notes)
    other = predict({**row, "chip": "Gaudi9"})
    assert (
        other.step_seconds.high / other.step_seconds.value
        > found.step_seconds.high / found.step_seconds.value
    )
    assert any("chip: not given" in note for note in other.notes)
    del row["peak_tflops_bf16"]
    for key, said in (("chips", "chips="), ("chip", "chip="), ("params_B", "params_B")):
        with pytest.raises(UserError, match=said):
            predict({name: value for name, value in row.items() if name != key})


def test_a_row_can_be_asked_for_on_another_machine():
    row = {"id": "a", "params_B": 70, "batch_seqs": 1024, "chips": 512, "chip": "A100-80G"}
    faster = predict(row, "h100_16k")
    assert faster.step_seconds.value < predict(row).step_seconds.value
