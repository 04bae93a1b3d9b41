"""Names of a sweep that a chart, a file name or a script would trip over."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import vl_convert

from harness.compare import compare
from harness.core.paths import file_name, within_folder
from harness.report.charts import panels
from harness.report.frames.sweep_frames import read_frames
from harness.report.page.assets import SCRIPT
from tests.compare.synthetic import Recipe, write_sweep

SEPARATED = "x\u2028s\u2029"
DRAW = """
const report = {specs: {good: {}, bad: {}}, tones: {light: {}, dark: {}}, axes: {}};
const elements = {};
const element = id => elements[id] ??= {
  textContent: id === "report" ? JSON.stringify(report) : "", addEventListener() {}, dataset: {},
};
globalThis.addEventListener = () => {};
globalThis.document = {getElementById: element, documentElement: {dataset: {}}, body: {dataset: {}},
  addEventListener() {}, querySelectorAll: () => []};
globalThis.matchMedia = () => ({matches: false, addEventListener() {}});
globalThis.vegaEmbed = async target => {
  if (target === element("chart-bad")) throw new Error("no such mark");
  return {finalize() {}};
};
"""


def test_a_name_with_line_separators_is_drawn_in_every_chart(tmp_path: Path):
    sweep = write_sweep(tmp_path / "sweep", Recipe(scales={SEPARATED: 10**7, "m": 10**8}))
    comparison = compare(sweep)
    specs = panels.panel_specs(comparison, read_frames(sweep, comparison))
    assert {"ladder", "curves", "deltas"} <= set(specs)
    for spec in specs.values():
        assert "\u2028" not in json.dumps(spec, ensure_ascii=False)
        assert "x↵s↵" in vl_convert.vegalite_to_svg(spec)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here, which runs the page's script")
def test_a_chart_that_fails_says_so_and_the_others_are_drawn(tmp_path: Path):
    result = 'JSON.stringify([element("chart-bad").textContent, document.body])'
    show = f"setTimeout(() => console.log({result}), 50);"
    script = tmp_path / "page.js"
    script.write_text(f"{DRAW}(() => {{{SCRIPT}}})();\n{show}\n")
    output = subprocess.run(["node", str(script)], capture_output=True, text=True, check=True).stdout
    text, body = json.loads(output)
    assert text == "This chart cannot be drawn: no such mark. The tables have its numbers."
    assert body["dataset"]["drawn"] == 2


def test_a_text_of_a_record_names_one_file():
    assert file_name("mha") == "mha"
    assert file_name("x/../../a\\b\0\u2028") == "x_.._.._a_b_\u2028"
    assert len(file_name("é" * 300).encode()) <= 100


def test_a_link_inside_its_folder_is_followed_and_one_out_of_it_is_not(tmp_path: Path):
    inside, outside = tmp_path / "run" / "inside", tmp_path / "outside"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_text("text")
    for name, target, followed in (("a", inside, True), ("b", outside, False), ("c", Path("c"), True)):
        link = inside.parent / name
        link.symlink_to(target)
        if followed:
            assert within_folder(link) == link
        else:
            with pytest.raises(FileNotFoundError, match="leads out of its folder"):
                within_folder(link)
