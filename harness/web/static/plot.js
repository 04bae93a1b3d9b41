// A chart of lines, bands and points on a canvas. It is drawn when it is seen and something changed.

import {Scale} from "./scales.js";

const LEFT = 52, RIGHT = 14, TOP = 10, BOTTOM = 36, REACH = 24;
const colours = new Map();

export function colour(name) {
  if (!colours.has(name))
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

const seen = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    target.plot.isSeen = isIntersecting;
    target.plot.schedule();
  }
}, {rootMargin: "200px"});
const sized = new ResizeObserver(entries => entries.forEach(({target}) => target.plot.change()));
const plots = new Set();

export function redrawAll() {
  colours.clear();
  for (const plot of plots) plot.change();
}

// The canvas of a drawing: its size, and when it is drawn.
export class Drawing {
  constructor(parent, height, label) {
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.canvas.plot = this;
    this.height = height;
    parent.append(this.canvas);
    plots.add(this);
    seen.observe(this.canvas);
    sized.observe(this.canvas);
    this.canvas.addEventListener("pointermove", event => this.point(event));
    this.canvas.addEventListener("pointerleave", () => showTip(null));
  }
  remove() {
    plots.delete(this);
    seen.unobserve(this.canvas);
    sized.unobserve(this.canvas);
    this.canvas.remove();
  }
  change() {
    this.isStale = true;
    this.schedule();
  }
  schedule() {
    if (!this.isSeen || !this.isStale || this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.isStale = false;
      this.begin();
    });
  }
  begin() {
    const ratio = devicePixelRatio || 1, width = this.canvas.clientWidth;
    if (!width) return;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.width = width;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    this.draw(pen);
    document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
  }
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    showTip(this.find(event.clientX - box.x, event.clientY - box.y), event);
  }
}

export function showTip(text, event) {
  const tip = document.getElementById("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const isRight = event.clientX > innerWidth / 2;
  tip.style.left = `${event.clientX + (isRight ? -tip.offsetWidth - 14 : 14)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 6)}px`;
}

// Axes: {x, y}, each with low, high, isLog, title, text, and isReversed for y. Layers: see `PAINT`.
export class Plot extends Drawing {
  set(axes, layers) {
    Object.assign(this, {axes, layers});
    this.change();
  }
  draw(pen) {
    if (!this.axes) return;
    const {x, y} = this.axes, floor = this.height - BOTTOM;
    const [start, end] = y.isReversed ? [TOP, floor] : [floor, TOP];
    this.x = new Scale(x.low, x.high, LEFT, this.width - RIGHT, x.isLog);
    this.y = new Scale(y.low, y.high, start, end, y.isLog);
    this.drawAxes(pen, floor);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT - 6, TOP - 6, this.width - LEFT - RIGHT + 12, floor - TOP + 12);
    pen.clip();
    for (const layer of this.layers) {
      pen.globalAlpha = layer.alpha ?? 1;
      pen.strokeStyle = pen.fillStyle = colour(layer.colour);
      pen.lineWidth = layer.width ?? 1.5;
      PAINT[layer.kind](pen, layer, this.x, this.y);
    }
    pen.restore();
  }
  drawAxes(pen, floor) {
    const {x, y} = this.axes;
    pen.strokeStyle = colour("grid");
    pen.fillStyle = colour("soft");
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const tick of this.y.ticks(5)) {
      const at = Math.round(this.y.at(tick)) + 0.5;
      line(pen, LEFT, at, this.width - RIGHT, at);
      pen.fillText(y.text(tick), LEFT - 7, at);
    }
    pen.textBaseline = "top";
    pen.textAlign = "center";
    let last = -Infinity;
    for (const tick of this.x.ticks(5)) {
      const at = this.x.at(tick), text = x.text(tick), half = pen.measureText(text).width / 2;
      if (at - half < last + 8) continue;
      last = at + half;
      pen.fillText(text, Math.min(at, this.width - half - 1), floor + 6);
    }
    pen.fillText(x.title, (LEFT + this.width - RIGHT) / 2, floor + 21);
    pen.save();
    pen.translate(3, (TOP + floor) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(y.title, 0, 0);
    pen.restore();
  }
  find(left, top) {
    let best = REACH ** 2, text = null;
    for (const layer of this.layers ?? []) {
      if (!layer.tip) continue;
      for (let i = 0; i < layer.x.length; i++) {
        if (layer.y[i] === null) continue;
        const distance = (this.x.at(layer.x[i]) - left) ** 2 + (this.y.at(layer.y[i]) - top) ** 2;
        if (distance < best) [best, text] = [distance, () => layer.tip(i)];
      }
    }
    return text && text();
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

const SHAPES = {
  dot: (pen, x, y, size) => { pen.arc(x, y, size, 0, 7); pen.fill(); },
  ring: (pen, x, y, size) => {
    pen.arc(x, y, size, 0, 7);
    const ink = pen.fillStyle;
    pen.fillStyle = colour("page");
    pen.fill();
    pen.fillStyle = ink;
    pen.stroke();
  },
  diamond: (pen, x, y, size) => {
    for (const [dx, dy] of [[0, -size], [size, 0], [0, size], [-size, 0]]) pen.lineTo(x + dx, y + dy);
    pen.fill();
  },
};

const PAINT = {
  line(pen, {x, y}, sx, sy) {
    pen.lineJoin = "round";
    pen.beginPath();
    let isDown = false;
    for (let i = 0; i < x.length; i++) {
      if (y[i] === null) { isDown = false; continue; }
      pen[isDown ? "lineTo" : "moveTo"](sx.at(x[i]), sy.at(y[i]));
      isDown = true;
    }
    pen.stroke();
  },
  band(pen, {x, low, high}, sx, sy) {
    const places = [...x.keys()].filter(i => low[i] !== null && high[i] !== null);
    pen.beginPath();
    for (const i of places) pen.lineTo(sx.at(x[i]), sy.at(high[i]));
    for (const i of places.reverse()) pen.lineTo(sx.at(x[i]), sy.at(low[i]));
    pen.fill();
  },
  points(pen, {x, y, shape, size}, sx, sy) {
    for (let i = 0; i < x.length; i++) {
      if (y[i] === null) continue;
      pen.beginPath();
      SHAPES[shape](pen, sx.at(x[i]), sy.at(y[i]), size);
    }
  },
  bar(pen, {x, low, high}, sx, sy) {
    for (let i = 0; i < x.length; i++)
      if (low[i] !== null) line(pen, sx.at(x[i]), sy.at(low[i]), sx.at(x[i]), sy.at(high[i]));
  },
  rule(pen, {y}, sx, sy) {
    line(pen, sx.start, sy.at(y), sx.end, sy.at(y));
  },
};
