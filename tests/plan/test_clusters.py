"""Clusters: what ships, what a user adds, what is refused."""

import pytest

from harness.config.compose import CONF_FOLDER, compose
from harness.config.run_identity import identity
from harness.core.errors import UserError
from harness.estimate.clusters import GIB, cluster_from_config, described_clusters, load_cluster
from harness.estimate.known_chips import CHIPS, find_chip

SHIPPED = ["colossus1", "colossus2", "h100_16k", "h100x1", "h100x8", "v5p_pod"]

OWN = """name: own
kinds:
  a:
    chip: H100-80G
    chips: 64
    memory_gib: 74.5
    memory_gb_s: 3350
    peak_tflops: {bf16: 989}
    scale_up_domain: 8
    scale_up_gb_s: 450
    scale_out_gb_s: 50
    watts: 1000
    mtbf_device_years: 5.8
power_overhead: 1.2
restart_minutes: 5
checkpoint_gb_s: 1
"""


def test_these_ship():
    assert described_clusters() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_cluster_is_the_same_by_name_and_by_config(name):
    assert cluster_from_config(compose([f"cluster={name}"]).cluster) == load_cluster(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_source_or_is_assumed(name):
    """A comment stands above each, at most six lines away: one may speak of several."""
    lines = (CONF_FOLDER / "cluster" / f"{name}.yaml").read_text().splitlines()
    for index, line in enumerate(lines):
        key, _, value = line.partition(":")
        if any(map(str.isdigit, value)) and key.strip() not in ("name", "chip") and "#" not in line:
            assert any("#" in above for above in lines[max(0, index - 6) : index]), line


@pytest.mark.parametrize("name", SHIPPED)
def test_chips_are_those_of_published_runs(name):
    for part in load_cluster(name).partitions:
        chip, links = find_chip(part.chip.name)
        assert part.chip.memory == pytest.approx(chip.memory, rel=0.02)
        assert part.chip.memory_bandwidth == chip.memory_bandwidth
        assert {key: part.chip.peaks[key] for key in chip.peaks if key in part.chip.peaks}.items() <= (
            chip.peaks.items()
        )
        assert (part.links.scale_up, part.links.scale_out) == (links.scale_up, links.scale_out)


def test_a_cluster_is_no_part_of_what_a_run_is():
    assert identity(compose([])) == identity(compose(["cluster=colossus2"]))
    assert compose([]).cluster.kinds == {}


def test_a_user_adds_a_cluster_in_yaml(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    assert load_cluster(path).partition().chip.memory == 74.5 * GIB


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ("    memory_gib: 74.5\n", "", r"cluster.kinds.a.memory_gib=null is needed"),
        ("peak_tflops: {bf16: 989}", "peak_tflops: {}", "peak_tflops=null"),
        ("watts: 1000", "watts: -5", "watts=-5"),
        ("power_overhead: 1.2\n", "", "power_overhead=null"),
        ("chips: 64", "chips: many", "many"),
        ("    watts: 1000", "    what: 1000", "what"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(tmp_path, was, becomes, named):
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(was, becomes))
    with pytest.raises(UserError, match=named) as said:
        load_cluster(path)
    assert "\n" not in str(said.value)


def test_a_misspelt_cluster_is_told_the_nearest():
    with pytest.raises(UserError, match="colossus2"):
        load_cluster("colosus2")


def test_this_machine_says_nothing_of_its_chips():
    with pytest.raises(UserError, match=r"cluster.kinds is empty"):
        load_cluster("local")


def test_a_kind_must_be_chosen_where_there_are_several():
    with pytest.raises(UserError, match="3 kinds"):
        load_cluster("colossus1").partition()
    assert load_cluster("colossus1").only("h200").partition().chips == 50_000


def test_chips_go_by_the_beginning_of_their_name():
    assert find_chip("H100")[0].name == "H100-80G"
    assert find_chip("TPU v5p")[0].name == "TPU v5p"
    assert len({chip.name for chip, _ in CHIPS.values()}) == len(CHIPS)
    with pytest.raises(UserError, match="not known"):
        find_chip("Z80")
