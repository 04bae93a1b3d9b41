// The lanes of a sweep over time: one row a lane, one bar a phase.

import {Drawing, colour} from "./plot.js";
import {Scale, numberText} from "./scales.js";

const LEFT = 34, RIGHT = 14, BOTTOM = 38, PARTS = 7;

export class Lanes extends Drawing {
  set(lanes) {
    this.lanes = lanes;
    this.row = lanes.rows.length > 12 ? 14 : 26;
    this.height = lanes.rows.length * this.row + BOTTOM;
    this.canvas.style.height = `${this.height}px`;
    this.change();
  }
  draw(pen) {
    const {rows, end, unit, phases} = this.lanes, thick = this.row > 20 ? 11 : 9;
    this.x = new Scale(0, end, LEFT, this.width - RIGHT, false);
    pen.textBaseline = "middle";
    rows.forEach((bars, lane) => {
      const foot = (lane + 1) * this.row - 3;
      pen.fillStyle = colour("soft");
      pen.textAlign = "right";
      pen.fillText(String(lane + 1), LEFT - 8, foot - thick / 2);
      for (const [, phase, from, to] of bars) {
        pen.fillStyle = phaseColour(phases, phase);
        const left = this.x.at(from);
        pen.fillRect(left, foot - thick, Math.max(0.6, this.x.at(to) - left), thick);
      }
      if (this.row > 20) this.nameRuns(pen, bars, foot - thick - 6);
    });
    const floor = rows.length * this.row;
    pen.fillStyle = colour("soft");
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const tick of this.x.ticks(8)) pen.fillText(numberText(tick), this.x.at(tick), floor + 6);
    pen.fillText(`${unit} since the sweep began`, (LEFT + this.width - RIGHT) / 2, floor + 21);
  }
  nameRuns(pen, bars, top) {
    pen.textAlign = "left";
    pen.fillStyle = colour("soft");
    for (let first = 0, next; first < bars.length; first = next) {
      for (next = first + 1; next < bars.length && bars[next][0] === bars[first][0]; next++);
      const left = this.x.at(bars[first][2]), room = this.x.at(bars[next - 1][3]) - left;
      if (pen.measureText(bars[first][0]).width <= room) pen.fillText(bars[first][0], left, top);
    }
  }
  find(left, top) {
    const bars = this.lanes?.rows[Math.floor(top / this.row)];
    const bar = bars?.find(([, , from, to]) => this.x.at(from) <= left && left <= this.x.at(to));
    if (!bar) return null;
    const [run, phase, from, to, devices] = bar;
    return `${run}\n${phase}, ${devices} device${devices === 1 ? "" : "s"}\n`
      + `${numberText(from)} to ${numberText(to)} ${this.lanes.unit}`;
  }
}

export function phaseColour(phases, phase) {
  const place = phases.indexOf(phase);
  return colour(`part-${(place < 0 ? phases.length : place) % PARTS}`);
}
