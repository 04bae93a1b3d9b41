// The loss curves: one panel a scale, one line a run, in the colour of its variant.

import {Plot} from "./plot.js";
import {countText, numberText} from "./scales.js";

const byId = id => document.getElementById(id);
const TITLES = {t: "tokens", s: "step", f: "model FLOPs", d: "device-seconds"};
const COLOURS = 7, RAW_RUNS = 60;

export const variantColour = (setup, variant) =>
  `variant-${Math.max(0, setup.variants.indexOf(variant)) % COLOURS}`;

// A figure with a title and a chart in `parent`, of each of these names, in their order.
export function layPanels(parent, panels, names, height, label) {
  for (const [name, panel] of panels) if (!names.includes(name)) {
    panel.plot.remove();
    panel.figure.remove();
    panels.delete(name);
  }
  for (const name of names) if (!panels.has(name)) {
    const figure = document.createElement("figure"), title = document.createElement("figcaption");
    figure.className = "panel";
    title.textContent = name;
    figure.append(title);
    panels.set(name, {figure, plot: new Plot(figure, height, `${label}, ${name}`)});
  }
  const order = names.map(name => panels.get(name).figure);
  if (order.some((figure, place) => parent.children[place] !== figure)) parent.append(...order);
}

export class Curves {
  constructor(parent, legend, state) {
    Object.assign(this, {parent, legend, state, panels: new Map(), picked: new Set()});
  }
  change() {
    if (this.state.setup) this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.lay();
    });
  }
  lay() {
    const {setup, curve, trail} = this.state, runs = new Map();
    for (const [name, content] of curve) add(runs, content.scale, {name, ...content});
    for (const [name, content] of trail) if (!curve.has(name)) {
      const [scale, variant, seed] = name.split("/");
      add(runs, scale, {name, scale, variant, seed: seed.replace("seed", ""), t: [], s: [], y: [], m: []});
    }
    this.layLegend(setup);
    const scales = setup.scales.filter(({name}) => runs.has(name));
    layPanels(this.parent, this.panels, scales.map(({name}) => name), 260, "training loss");
    const units = new Map(scales.map(({unit}) => [unit, null]));
    for (const unit of units.keys()) units.set(unit, this.yAxis(unit, scales, runs));
    for (const scale of scales) this.draw(scale, runs.get(scale.name), units.get(scale.unit));
  }
  yAxis(unit, scales, runs) {
    const top = this.state.ceilings?.[unit] ?? null, isLog = byId("log-y").checked;
    const values = scales.filter(scale => scale.unit === unit).flatMap(({name}) =>
      runs.get(name).flatMap(run => run.m.concat(this.state.trail.get(run.name)?.y ?? [])))
      .filter(value => value !== null && (top === null || value <= top));
    const [low, high] = extent(values);
    const pad = isLog ? 1 : 0.04 * (high - low);
    return {low: isLog ? low / 1.01 : low - pad, high: top ?? high, isLog, text: numberText,
      title: `\u2190 better, training loss (${unit})`};
  }
  draw(scale, runs, y) {
    const axis = byId("axis").value, layers = [], {trail, setup} = this.state;
    const ends = scale[axis] ? [scale[axis]] : [];  // the whole budget, so that a curve grows into its place
    const faint = this.picked.size ? 0.06 : 1;
    const order = [...runs].sort((a, b) => this.picked.has(a.variant) - this.picked.has(b.variant));
    for (const run of order) {
      const colour = variantColour(setup, run.variant), x = run[axis] ?? [];
      const strength = !this.picked.size || this.picked.has(run.variant) ? 1 : faint;
      const tip = i => `${run.name}\n${TITLES[axis]} ${countText(x[i])}\n`
        + `smoothed ${run.m[i]?.toFixed(4)}\nloss ${run.y[i]?.toFixed(4) ?? "\u2013"}`;
      if (runs.length <= RAW_RUNS && strength === 1)
        layers.push({kind: "line", x, y: run.y, colour, width: 0.7, alpha: 0.3});
      layers.push({kind: "line", x, y: run.m, colour, width: runs.length > RAW_RUNS ? 1 : 1.7,
        alpha: strength * (runs.length > RAW_RUNS ? 0.7 : 1), tip: strength === 1 ? tip : null});
      const newest = trail.get(run.name)?.[axis] && trail.get(run.name);
      if (newest) this.drawTrail(layers, run, newest, axis, colour, strength);
      ends.push(...x.slice(0, 1), ...x.slice(-1), ...(newest?.[axis].slice(-1) ?? []));
    }
    const [low, high] = extent(ends), isLog = byId("log-x").checked;
    const x = {low: isLog ? low : 0, high, isLog, text: countText, title: TITLES[axis]};
    this.panels.get(scale.name).plot.set({x, y}, layers);
  }
  drawTrail(layers, run, newest, axis, colour, alpha) {
    const place = newest[axis].at(-1), loss = newest.y.at(-1), point = {x: [place], y: [loss], colour, alpha};
    const tip = () => `${run.name}\n${TITLES[axis]} ${countText(place)}\nloss ${loss?.toFixed(4)}`;
    const x = [...(run[axis] ?? []).slice(-1), ...newest[axis]], y = [...run.m.slice(-1), ...newest.y];
    layers.push({kind: "line", x, y, colour, width: 0.9, alpha: 0.6 * alpha});
    layers.push({kind: "points", shape: "dot", size: 3.2, ...point, tip});
  }
  layLegend(setup) {
    const key = setup.variants.join("\n");
    if (this.legendKey !== key) {
      this.legendKey = key;
      this.legend.replaceChildren(...setup.variants.map(variant => this.button(setup, variant)));
    }
    for (const button of this.legend.children)
      button.classList.toggle("off", this.picked.size > 0 && !this.picked.has(button.value));
  }
  button(setup, variant) {
    const button = document.createElement("button"), sign = document.createElement("i");
    button.type = "button";
    button.value = variant;
    sign.style.background = `var(--${variantColour(setup, variant)})`;
    button.append(sign, variant);
    button.addEventListener("click", event => {
      const isAlone = this.picked.size === 1 && this.picked.has(variant);
      if (!event.shiftKey) this.picked.clear();
      if (!isAlone && !this.picked.delete(variant)) this.picked.add(variant);
      this.change();
    });
    return button;
  }
}

function add(groups, key, item) {
  if (!groups.has(key)) groups.set(key, []);
  groups.get(key).push(item);
}

export function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== null && value !== undefined) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 1] : [low, high];
}
