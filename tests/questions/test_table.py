"""The table of verdicts holds what finished sweeps say, and keeps what it held."""

from __future__ import annotations

import pytest

import harness
from experiments.questions import table
from tests.compare.synthetic import Recipe, write_sweep

TEXT = f"before\n\n{table.BEGIN}\n{table.END}\nafter\n"


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    monkeypatch.setattr(table, "README", path)
    return path


def rows_of(text):
    return {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}


def test_a_row_says_what_a_sweep_says(readme, tmp_path):
    scales = {"s": 10**7, "m": 3 * 10**7}
    recipe = Recipe(variants={"control": 1.0, "z_loss": 1.3, "own_document": 1.0}, scales=scales)
    sweep = write_sweep(tmp_path / "runs" / "question_z_loss_own_document", recipe)
    table.main(str(tmp_path / "runs"))
    rows = rows_of(readme.read_text())
    assert rows.keys() == {"question", "z_loss", "own_document"}
    s, m = (r for r in harness.open_sweep(sweep.path).comparison.rungs if r.variant == "z_loss")
    assert s.k
    assert f"| z_loss | O1 | control | 3/3 | better: k {s.k.k:.3f} [{s.k.low:.3f}, " in rows["z_loss"]
    assert m.k
    assert f"| better: k {m.k.k:.3f} [" in rows["z_loss"]
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("after\n")


def test_rows_of_other_sweeps_stay(readme, tmp_path):
    one, other = (Recipe(variants={"control": 1.0, name: 1.0}) for name in ("z_loss", "muon"))
    write_sweep(tmp_path / "first" / "question_z_loss", one)
    write_sweep(tmp_path / "second" / "question_muon", other)
    table.main(str(tmp_path / "first"))
    before = readme.read_text()
    table.main(str(tmp_path / "first"))
    assert readme.read_text() == before
    table.main(str(tmp_path / "second"))
    assert rows_of(readme.read_text()).keys() == {"question", "z_loss", "muon"}
    assert readme.read_text().count("|---|") == before.count("|---|")
