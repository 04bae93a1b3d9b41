"""Style and script of the page, and the Vega bundle."""

from __future__ import annotations

from importlib import metadata

import vl_convert

from harness.core.cache.cache_entries import CacheEntry
from harness.report.charts import theme


def vega_bundle() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script (part of vl-convert; 0.9 MB).

    Bundling takes two seconds, so the result is cached, one entry per version.
    """
    entry = CacheEntry("report", "vega", {"vl-convert": metadata.version("vl-convert-python")})
    content = entry.read()
    if content is not None:
        return content.decode()
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    entry.write(text.encode())
    return text


def _tone(tone: dict) -> str:
    names = ("ink", "soft", "line", "grid", "page")
    return "".join(f"--{name}: {tone[name]}; " for name in names) + f"--font: {theme.FONT};"


STYLE = (
    f"""
:root {{ color-scheme: light; {_tone(theme.LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root:not([data-tone=light]) {{ color-scheme: dark; {_tone(theme.DARK)} }}
}}
:root[data-tone=dark] {{ color-scheme: dark; {_tone(theme.DARK)} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 var(--font); }
header, main { max-width: 1120px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 28px; }
figure { margin: 0 0 18px; }
figure img { max-width: 100%; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: 13px; }
.bar { display: flex; justify-content: space-between; align-items: center; }
.kicker { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .04em; }
button, select { font: inherit; font-size: 13px; color: var(--soft); background: none;
  border: 1px solid var(--line); border-radius: 6px; padding: 3px 9px; }
h1 { font-size: 21px; line-height: 1.35; font-weight: 650; margin: 10px 0 8px; letter-spacing: -.01em; }
h1 span { display: block; margin-bottom: 4px; }
h2 { font-size: 18px; font-weight: 650; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 600; margin: 22px 0 6px; }
.hypothesis, .caption, .note { color: var(--soft); margin: 0 0 10px; max-width: 90ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 14px;
  margin: 18px 0 8px; }
.card { border: 1px solid var(--line); border-left: 5px solid var(--soft); border-radius: 8px;
  padding: 12px 16px; }
.card.B_BETTER { border-left-color: #009e73; } .card.A_BETTER { border-left-color: #d55e00; }
.card.EQUIVALENT { border-left-color: #56b4e9; } .card.INVALID { border-left-color: #cc79a7; }
.card p { margin: 0; } .soft { color: var(--soft); font-size: 13px; }
small { color: var(--soft); font-weight: 400; font-size: 12px; margin-left: 4px; }
.decision { font-weight: 650; font-size: 17px; }
.k { font-size: 20px; font-variant-numeric: tabular-nums; }
.card ul { margin: 8px 0 0; padding-left: 17px; color: var(--soft); font-size: 13px; }
section { padding: 22px 0 6px; border-top: 1px solid var(--line); margin-top: 18px; }
.scroll, .chart { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 8px 0; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; overflow-wrap: break-word; }
td { border-bottom: 1px solid var(--grid); }
.number { text-align: right; white-space: nowrap; } .same { color: var(--line); }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
.controls { display: flex; gap: 18px; color: var(--soft); font-size: 13px; margin: 6px 0 10px; }
.chart { margin: 8px 0 4px; } .chart.vega-embed { display: block; }
.chart details { margin: 0; } .chart svg { display: block; }
#vg-tooltip-element { font: 12px/1.4 inherit; }
@media print { .controls, button { display: none; } section { break-inside: avoid; } }
"""
)

SCRIPT = r"""
"use strict";
const report = JSON.parse(document.getElementById("report").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const byId = id => document.getElementById(id);
const tone = () => document.documentElement.dataset.tone || (dark.matches ? "dark" : "light");
const views = {};

// The loss curves over another axis, or with other scales: the same specification, edited.
function adjusted(spec) {
  const copy = structuredClone(spec), axis = byId("axis").value, told = report.axes[axis];
  for (const layer of copy.spec.layer) {
    const {x, y} = layer.encoding;
    x.field = axis;
    x.axis.title = told.title;
    x.axis.labelExpr = told.label;
    x.scale.type = byId("log-x").checked ? "log" : "linear";
    if (y.scale && !byId("log-y").checked) Object.assign(y.scale, {type: "linear", zero: false});
  }
  return copy;
}

async function draw(name) {
  const target = byId("chart-" + name);
  if (!target) return;
  const spec = name === "curves" ? adjusted(report.specs[name]) : report.specs[name];
  const options = {renderer: "svg", config: report.tones[tone()], tooltip: {theme: tone()},
    actions: {export: true, source: false, compiled: false, editor: false}};
  if (views[name]) views[name].finalize();
  delete views[name];
  try {
    views[name] = await vegaEmbed(target, spec, options);
  } catch (error) {
    target.textContent = `This chart cannot be drawn: ${error.message}. The tables have its numbers.`;
  }
}

async function drawAll() {
  for (const name of Object.keys(report.specs)) await draw(name);
  document.body.dataset.drawn = Object.keys(report.specs).length;
}

for (const id of ["axis", "log-x", "log-y"]) byId(id)?.addEventListener("change", () => draw("curves"));
byId("tone").addEventListener("click", () => {
  document.documentElement.dataset.tone = tone() === "dark" ? "light" : "dark";
  drawAll();
});
dark.addEventListener("change", drawAll);
drawAll();
"""
