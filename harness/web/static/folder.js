// The page of a folder: each sweep with its verdict, its state and its age.

import {follow, showNotice, showState, switchTone} from "./connection.js";

const byId = id => document.getElementById(id);
const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
let content = null, notice = null, isConnected = false;

function age(changed) {
  const seconds = Math.max(0, Date.now() / 1000 - changed);
  for (const [size, name] of UNITS) if (seconds >= size) {
    const count = Math.floor(seconds / size);
    return `changed ${count} ${name}${count === 1 ? "" : "s"} ago`;
  }
  return "changed now";
}

function element(tag, kind, text) {
  const made = document.createElement(tag);
  made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function card(sweep) {
  const link = element("a", `card ${sweep.state === "at work" ? "running" : ""}`);
  link.href = `sweep/${encodeURIComponent(sweep.name)}/`;
  const top = element("div", "top"), meter = element("div", "meter"), bar = element("i", "");
  top.append(element("b", "", sweep.name), element("span", "soft", `${sweep.state}, ${age(sweep.changed)}`));
  bar.style.width = `${100 * sweep.share}%`;
  meter.append(bar);
  link.append(top, meter, element("p", "soft", sweep.summary));
  if (sweep.failed) link.append(element("p", "failed", `${sweep.failed} with a failure`));
  const verdict = sweep.verdict.length ? sweep.verdict : ["No verdict is stored yet."];
  link.append(...verdict.map(text => element("p", sweep.verdict.length ? "" : "soft", text)));
  return link;
}

function show() {
  if (!content) return;
  const atWork = content.rows.filter(sweep => sweep.state === "at work").length;
  document.title = `${content.folder}: ${content.rows.length} sweeps`;
  byId("name").textContent = content.folder;
  byId("verdict").textContent = `${content.rows.length} sweep${content.rows.length === 1 ? "" : "s"}`
    + `, ${atWork} at work`;
  byId("sweeps").replaceChildren(...content.rows.map(card));
  showState(byId("state"), isConnected, atWork ? "at work" : "");
}

follow(changes => {
  if ("notice" in changes) showNotice(notice = changes.notice);
  content = changes.sweeps ?? content;
  show();
}, connected => {
  isConnected = connected;
  showState(byId("state"), isConnected, "");
  show();
});
switchTone(show);
setInterval(show, 30000);
