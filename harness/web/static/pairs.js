// Paired differences as they grow: one row a treatment, one panel a scale.

import {extent, layPanels, variantColour} from "./curves.js";
import {countText, signedText} from "./scales.js";

export class Pairs {
  constructor(parent, state) {
    Object.assign(this, {parent, state, rows: new Map()});
  }
  change() {
    if (this.state.setup) this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.lay();
    });
  }
  lay() {
    const {setup, pair} = this.state, {control, scales} = setup;
    const treatments = setup.variants.filter(name => scales.some(scale => pair.has(`${name}/${scale.name}`)));
    for (const variant of treatments) {
      if (!this.rows.has(variant)) this.rows.set(variant, this.makeRow(variant, control));
      const row = this.rows.get(variant);
      const present = scales.filter(({name}) => pair.has(`${variant}/${name}`));
      layPanels(row.panels, row.plots, present.map(({name}) => name), 200, `${variant} minus ${control}`);
      const parts = present.map(({name}) => this.layers(variant, name));
      const [low, high] = extent([0, ...parts.flatMap(part => part.values)]), pad = 0.06 * (high - low);
      present.forEach(({name, unit, t}, place) => {
        const x = {low: 0, high: Math.max(t, parts[place].end), text: countText, title: "tokens"};
        const y = {low: low - pad, high: high + pad, isReversed: true, text: signedText,
          title: `\u0394L (${unit}), better \u2192`};
        row.plots.get(name).plot.set({x, y}, parts[place].layers);
      });
    }
    for (const [variant, row] of this.rows) if (!treatments.includes(variant)) {
      row.element.remove();
      this.rows.delete(variant);
    }
    const order = treatments.map(name => this.rows.get(name).element);
    if (order.some((element, place) => this.parent.children[place] !== element)) this.parent.append(...order);
  }
  makeRow(variant, control) {
    const element = document.createElement("div"), title = document.createElement("h3");
    const panels = document.createElement("div");
    element.className = "pair";
    panels.className = "panels";
    title.textContent = `${variant} minus ${control}`;
    element.append(title, panels);
    return {element, panels, plots: new Map()};
  }
  layers(variant, scale) {
    const {seeds, mean} = this.state.pair.get(`${variant}/${scale}`), end = this.state.ends?.[variant]?.[scale];
    const colour = variantColour(this.state.setup, variant), layers = [{kind: "rule", y: 0, colour: "line"}];
    const values = [], places = [];
    for (const phase of ["hot", "decayed"]) if (mean[phase]?.t.length) {
      const {t, low, high} = mean[phase];
      layers.push({kind: "band", x: t, low, high, colour, alpha: 0.14});
    }
    for (const {seed, phase, t, y} of seeds) {
      const tip = i => `${variant}, seed ${seed}, ${phase}\n${countText(t[i])} tokens\n\u0394L ${signedText(y[i])}`;
      if (phase === "hot") layers.push({kind: "line", x: t, y, colour, width: 0.8, alpha: 0.4});
      else layers.push({kind: "points", shape: "dot", size: 1.8, x: t, y, colour, alpha: 0.5, tip});
      values.push(...y);
      places.push(...t);
    }
    for (const [phase, {t, y, low, high, n}] of Object.entries(mean)) {
      const tip = i => `${variant}, mean of ${n[i]} seeds, ${phase}\n${countText(t[i])} tokens\n\u0394L `
        + signedText(y[i]) + (low[i] === null ? "" : ` [${signedText(low[i])}, ${signedText(high[i])}]`);
      if (phase === "hot") layers.push({kind: "line", x: t, y, colour, width: 2});
      const shape = phase === "hot" ? {shape: "ring", size: 2.6, width: 1.4} : {shape: "diamond", size: 5.5};
      layers.push({kind: "points", x: t, y, colour, tip, ...shape});
    }
    if (end) {
      const [t, middle, low, high, text] = end;
      layers.push({kind: "bar", x: [t], y: [middle], low: [low], high: [high], colour, width: 2.6,
        tip: () => `verdict\n${text}`});
      values.push(low, high, middle);
      places.push(t);
    }
    return {layers, values: values.concat(bounded(mean, values)), end: extent(places)[1]};
  }
}

// The ends of the bands, but none that are so wide that they would flatten the lines.
function bounded(mean, values) {
  const [low, high] = extent([0, ...values]), room = 1.5 * (high - low);
  const ends = Object.values(mean).flatMap(part => [...part.low, ...part.high]);
  return ends.map(end => end === null ? null : Math.max(low - room, Math.min(high + room, end)));
}
