"""Style of the page: in two tones, on screens of any width, and on paper."""

from __future__ import annotations

from harness.report.charts import theme


def _tone(tone: dict) -> str:
    names = ("ink", "soft", "line", "grid", "page", "shade")
    colours = {name: tone[name] for name in names}
    colours |= {f"variant-{i}": colour for i, colour in enumerate(tone["variants"])}
    return "".join(f"--{name}: {colour}; " for name, colour in colours.items()) + f"--font: {theme.FONT};"


TONES = f"""
:root {{ color-scheme: light; {_tone(theme.LIGHT)} }}
@media (prefers-color-scheme: dark) {{
  :root:not([data-tone=light]) {{ color-scheme: dark; {_tone(theme.DARK)} }}
}}
:root[data-tone=dark] {{ color-scheme: dark; {_tone(theme.DARK)} }}
"""

LAYOUT = """
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
"""

PAPER = f"""
@page {{ margin: 14mm 12mm; }}
@media print {{
  :root:root {{ color-scheme: light; {_tone(theme.LIGHT)} }}
  body, h3 {{ font-size: 11px; }} h1 {{ font-size: 14px; }} h2 {{ font-size: 13px; }}
  .decision {{ font-size: 12px; }}
  .soft, small, .card ul {{ font-size: 10px; }}
  header, main {{ max-width: none; padding: 0; }}
  .controls, button, .hint.on, .vega-embed summary {{ display: none; }}
  .scroll, .chart {{ overflow: visible; background: none; }}
  .chart svg {{ max-width: 100%; height: auto; }}
  .chart[data-tone=dark] svg {{ background: {theme.DARK["page"]}; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }}
  table {{ width: auto; font-size: 9px; }}
  th, td {{ padding: 2px 8px 2px 0; }}
  .chart, .card, figure, tr, .caption, li {{ break-inside: avoid; }}
  h2, h3, h2 + .caption {{ break-after: avoid; }}
  thead {{ display: table-header-group; }}
}}
"""

CARDS = "".join(
    f".card.variant-{i} {{ border-left-color: var(--variant-{i}); }}\n"
    for i in range(len(theme.LIGHT["variants"]))
)

STYLE = TONES + LAYOUT + CARDS + PAPER
