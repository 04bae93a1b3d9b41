"""Script of the page, and the Vega bundle."""

from __future__ import annotations

from importlib import metadata

import vl_convert

from harness.core.cache.cache_entries import CacheEntry


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
