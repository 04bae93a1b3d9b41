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
    names = ("ink", "soft", "line", "grid", "page", "shade")
    colours = {name: tone[name] for name in names}
    colours |= {f"variant-{i}": colour for i, colour in enumerate(tone["variants"])}
    return "".join(f"--{name}: {colour}; " for name, colour in colours.items()) + f"--font: {theme.FONT};"


STYLE = f"""
:root {{ color-scheme: light; {_tone(theme.LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root:not([data-tone=light]) {{ color-scheme: dark; {_tone(theme.DARK)} }}
}}
:root[data-tone=dark] {{ color-scheme: dark; {_tone(theme.DARK)} }}
""" + """
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
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 14px;
  margin: 18px 0 8px; }
.card { border: 1px solid var(--line); border-left: 5px solid var(--soft); border-radius: 8px;
  padding: 12px 16px; }
.card p { margin: 0; } .soft { color: var(--soft); font-size: 13px; }
small { color: var(--soft); font-weight: 400; font-size: 12px; margin-left: 4px; }
.decision { font-weight: 650; font-size: 17px; }
.numbers { font-variant-numeric: tabular-nums; margin-top: 4px; }
.card ul { margin: 8px 0 0; padding-left: 17px; color: var(--soft); font-size: 13px; }
section { padding: 22px 0 6px; border-top: 1px solid var(--line); margin-top: 18px; }
.scroll, .chart { overflow-x: auto; background: linear-gradient(90deg, var(--page) 45%, transparent) left,
  linear-gradient(-90deg, var(--page) 45%, transparent) right,
  linear-gradient(90deg, var(--shade), transparent) left,
  linear-gradient(-90deg, var(--shade), transparent) right;
  background-repeat: no-repeat; background-size: 44px 100%, 44px 100%, 16px 100%, 16px 100%;
  background-attachment: local, local, scroll, scroll; }
.hint { display: none; margin: 6px 0 0; color: var(--soft); font-size: 12px; }
.hint.on { display: block; }
table { border-collapse: collapse; width: max-content; font-size: 13px; margin: 8px 0;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; overflow-wrap: break-word; }
td { border-bottom: 1px solid var(--grid); }
.words { max-width: 46ch; } .number { text-align: right; white-space: nowrap; } .same { color: var(--soft); }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
.controls { display: flex; flex-wrap: wrap; gap: 6px 18px; color: var(--soft); font-size: 13px;
  margin: 6px 0 10px; }
.chart { margin: 8px 0 4px; } .chart.vega-embed { display: block; }
.chart details { margin: 0; } .chart svg { display: block; }
#vg-tooltip-element { font: 12px/1.4 inherit; }
@media (min-width: 640px) { .chart svg { max-width: 100%; height: auto; } }
@media (max-width: 639px) {
  header, main { padding: 0 14px; }
  h1 { font-size: 18px; }
  th, td { padding-right: 12px; }
  th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); }
}
@page { margin: 14mm 12mm; }
@media print {
  :root:root { color-scheme: light; PRINT_TONE }
  body, h3 { font-size: 11px; } h1 { font-size: 14px; } h2 { font-size: 13px; } .decision { font-size: 12px; }
  .soft, small, .card ul { font-size: 10px; }
  header, main { max-width: none; padding: 0; }
  .controls, button, .hint.on, .vega-embed summary { display: none; }
  .scroll, .chart { overflow: visible; background: none; }
  .chart svg { max-width: 100%; height: auto; }
  .chart[data-tone=dark] svg { background: DARK_PAGE; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  table { width: auto; font-size: 9px; }
  th, td { padding: 2px 8px 2px 0; }
  .chart, .card, figure, tr, .caption, li { break-inside: avoid; }
  h2, h3, h2 + .caption { break-after: avoid; }
  thead { display: table-header-group; }
}
""".replace("PRINT_TONE", _tone(theme.LIGHT)).replace("DARK_PAGE", theme.DARK["page"])

SCRIPT = r"""
"use strict";
const report = JSON.parse(document.getElementById("report").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const byId = id => document.getElementById(id);
const tone = () => document.documentElement.dataset.tone || (dark.matches ? "dark" : "light");
const views = {};

// On a phone, small multiples stand in as many columns as there is room for, mostly one, each as wide as that
// allows, and no line of text is wider than the page. A larger screen shows the whole chart, made smaller.
const PHONE = 640, AXIS = 90, NARROWEST = 230, WIDEST = 440, LETTER = 6.4;
function wrapped(texts, room) {
  const letters = Math.max(20, Math.floor(room / LETTER)), lines = [];
  for (const text of [texts ?? []].flat().flatMap(line => line.split("\u2003"))) {
    let line = "";
    for (const word of text.split(" ")) {
      if (line && line.length + word.length >= letters) { lines.push(line); line = ""; }
      line += (line && " ") + word;
    }
    lines.push(line);
  }
  return lines;
}

function fitted(spec, room) {
  for (const part of spec.vconcat ?? []) fitted(part, room);
  if (!spec.columns) return spec;
  const own = spec.resolve.scale.y === "independent", rest = own ? room : room - AXIS, each = own ? AXIS : 0;
  spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(rest / (NARROWEST + each))));
  const gap = spec.columns > 1 ? spec.spacing : 0;
  spec.spec.width = Math.min(WIDEST, Math.floor(rest / spec.columns) - each - gap);
  if (spec.title) {
    const {text, subtitle} = spec.title;
    Object.assign(spec.title, {text: wrapped(text, room), subtitle: wrapped(subtitle, room)});
  }
  return spec;
}

// The loss curves over another axis, or with other scales: the same specification, edited.
function adjusted(spec) {
  const axis = byId("axis").value, told = report.axes[axis];
  for (const layer of spec.spec.layer) {
    const {x, y} = layer.encoding;
    x.field = axis;
    x.axis.title = told.title;
    x.axis.labelExpr = told.label;
    x.scale.type = byId("log-x").checked ? "log" : "linear";
    if (y.scale && !byId("log-y").checked) Object.assign(y.scale, {type: "linear", zero: false});
  }
  return spec;
}

// The colours of the tone, and a legend with as many columns as the page has room for.
function toned(room) {
  const config = structuredClone(report.tones[tone()]);
  if (room < PHONE) Object.assign(config.legend, {columns: Math.max(1, Math.floor(room / 130))});
  return config;
}

async function draw(name) {
  const target = byId("chart-" + name);
  if (!target) return;
  const room = target.clientWidth, spec = structuredClone(report.specs[name]);
  if (room < PHONE) fitted(spec, room);
  if (name === "curves") adjusted(spec);
  target.dataset.tone = tone();
  const options = {renderer: "svg", config: toned(room), tooltip: {theme: tone()},
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
  hint();
  document.body.dataset.drawn = Object.keys(report.specs).length;
}

// A line above each table and chart that is wider than the page.
function hint() {
  for (const box of document.querySelectorAll(".scroll, .chart")) {
    const isWide = box.scrollWidth > box.clientWidth + 1;
    box.previousElementSibling?.classList.toggle("on", isWide);
    if (isWide) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}

// What is folded is printed too, and a table that is wider than the paper is made smaller.
const PAPER = 700, PRINTED = 0.72;
const folded = () => [...document.querySelectorAll("details:not(.chart details)")];
addEventListener("beforeprint", () => {
  for (const part of folded()) Object.assign(part, {wasOpen: part.open, open: true});
  for (const table of document.querySelectorAll("table"))
    table.style.zoom = Math.min(1, PAPER / (PRINTED * table.offsetWidth));
});
addEventListener("afterprint", () => {
  for (const part of folded()) part.open = part.wasOpen;
  for (const table of document.querySelectorAll("table")) table.style.zoom = "";
});
document.addEventListener("toggle", hint, true);

let drawnWidth = document.body.clientWidth, waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    if (document.body.clientWidth === drawnWidth) return;
    drawnWidth = document.body.clientWidth;
    drawAll();
  }, 200);
});

for (const id of ["axis", "log-x", "log-y"]) byId(id)?.addEventListener("change", () => draw("curves"));
byId("tone").addEventListener("click", () => {
  document.documentElement.dataset.tone = tone() === "dark" ? "light" : "dark";
  drawAll();
});
dark.addEventListener("change", drawAll);
drawAll();
"""
