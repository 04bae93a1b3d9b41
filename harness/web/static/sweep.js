// The page of one sweep: it keeps the newest value of each key, and draws again what depends on it.

import {follow, showNotice, showState, switchTone} from "./connection.js";
import {Curves} from "./curves.js";
import {Lanes, phaseColour} from "./lanes.js";
import {Pairs} from "./pairs.js";
import {redrawAll} from "./plot.js";

const byId = id => document.getElementById(id);
const state = {curve: new Map(), trail: new Map(), pair: new Map()};
const curves = new Curves(byId("curves"), byId("legend"), state);
const pairs = new Pairs(byId("pairs"), state);
let lanes = null, isConnected = false;

const lines = (element, texts) => element.replaceChildren(...texts.map(text => {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  return paragraph;
}));

function showVerdict({lines: texts, html, tables}) {
  if (html) {  // the sentence stands above the progress, its reasons below
    byId("reasons").innerHTML = html;
    byId("head").replaceChildren(...byId("reasons").querySelectorAll("h1, .interim"));
  } else if (texts.length) byId("verdict").textContent = texts.join(" ");
  byId("reasons-section").hidden = !html;
  byId("tables").innerHTML = tables;
}

function showProgress(progress) {
  document.title = `${Math.round(100 * progress.share)} % ${progress.name}`;
  byId("name").textContent = progress.name;
  byId("summary").textContent = progress.summary;
  const meter = document.querySelector(".meter");
  meter.setAttribute("aria-valuenow", Math.round(100 * progress.share));
  meter.firstElementChild.style.width = `${100 * progress.share}%`;
  byId("counts").replaceChildren(...Object.entries(progress.counts).map(([name, count]) => {
    const item = document.createElement("span");
    item.className = name;
    item.textContent = `${count} ${name}`;
    return item;
  }));
  lines(byId("failures"), progress.failures);
  byId("running").innerHTML = progress.running;
  byId("more").textContent = progress.more > 0 ? `and ${progress.more} more running` : "";
  lines(byId("queue"), [...progress.activities, ...progress.queue, progress.legend, ...progress.notes]
    .filter(Boolean));
  if (!state.verdict?.html && !state.verdict?.lines.length)
    byId("verdict").textContent = "No verdict yet: the runs are being judged.";
}

// A cell for each run: one block a scale, one row a variant.
const cells = new Map();
function showRuns(runs) {
  if (!state.setup || !runs) return;
  if (runs.length !== cells.size || runs.some(([name]) => !cells.has(name))) layCells(runs);
  for (const [name, word, share] of runs) {
    const cell = cells.get(name), key = `${word} ${share}`;
    if (cell.key === key) continue;
    cell.key = key;
    cell.className = `cell ${word.replaceAll(" ", "-")}`;
    cell.title = `${name}: ${word}, ${Math.round(100 * share)} %`;
    cell.firstElementChild.style.width = `${100 * share}%`;
  }
}

function layCells(runs) {
  const blocks = new Map();
  cells.clear();
  byId("blocks").replaceChildren();
  byId("blocks").classList.toggle("many", runs.length > 200);
  for (const {name: scale} of state.setup.scales) blocks.set(scale, new Map());
  for (const [name] of runs) {
    const [scale, variant] = name.split("/"), cell = document.createElement("div");
    cell.append(document.createElement("i"));
    cells.set(name, cell);
    const rows = blocks.get(scale) ?? blocks.set(scale, new Map()).get(scale);
    (rows.get(variant) ?? rows.set(variant, []).get(variant)).push(cell);
  }
  for (const [scale, rows] of blocks) {
    const block = document.createElement("div"), title = document.createElement("h3");
    block.className = "block";
    title.textContent = scale;
    block.append(title);
    for (const variant of [...rows.keys()].sort((a, b) => rank(a) - rank(b))) {
      const row = document.createElement("div"), label = document.createElement("span");
      label.textContent = label.title = variant;
      row.append(label, ...rows.get(variant));
      block.append(row);
    }
    byId("blocks").append(block);
  }
}
const rank = variant => state.setup.variants.indexOf(variant);

function showLanes(content) {
  byId("lanes-section").hidden = !content;
  if (!content) return;
  lanes ??= new Lanes(byId("lanes"), 60, "phases of each lane over time");
  lanes.set(content);
  byId("used").textContent = content.lines.join("; ");
  const present = new Set(content.rows.flatMap(bars => bars.map(bar => bar[1])));
  const shown = [...content.phases, ...[...present].filter(name => !content.phases.includes(name))];
  byId("phases").replaceChildren(...shown.filter(name => present.has(name)).map(name => {
    const item = document.createElement("span"), sign = document.createElement("i");
    sign.style.background = phaseColour(content.phases, name);
    item.append(sign, name);
    return item;
  }));
}

const SHOW = {notice: showNotice, verdict: showVerdict, progress: showProgress, runs: showRuns, lanes: showLanes};

function take(changes) {
  const touched = new Set();
  for (const [key, value] of Object.entries(changes)) {
    const kind = key.split("/", 1)[0], rest = key.slice(kind.length + 1);
    touched.add(kind);
    if (!rest) state[key] = value;
    else if (value === null) state[kind].delete(rest);
    else state[kind].set(rest, value);
  }
  for (const [key, show] of Object.entries(SHOW)) if (touched.has(key)) show(state[key]);
  if (touched.has("setup")) showRuns(state.runs);
  if (["setup", "curve", "trail", "ceilings"].some(kind => touched.has(kind))) curves.change();
  if (["setup", "pair", "ends"].some(kind => touched.has(kind))) pairs.change();
  byId("curves-section").hidden = !state.curve.size && !state.trail.size;
  byId("pairs-section").hidden = !state.pair.size;
  showConnection();
}

const showConnection = () =>
  showState(byId("state"), isConnected, state.notice ? state.notice.kind : state.progress?.state ?? "");

for (const id of ["axis", "log-x", "log-y"]) byId(id).addEventListener("change", () => curves.change());
byId("up").hidden = !location.pathname.includes("/sweep/");
switchTone(() => {
  redrawAll();
  if (state.lanes) showLanes(state.lanes);
});
follow(take, connected => {
  isConnected = connected;
  showConnection();
});
