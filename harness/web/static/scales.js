// Axes of charts: positions, ticks, and the text of numbers.

const PREFIXES = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

export function countText(value) {
  if (!value) return "0";
  if (Math.abs(value) >= 1e15) return value.toExponential(1).replace("+", "").replace(".0e", "e");
  for (const [limit, unit] of PREFIXES)
    if (Math.abs(value) >= limit) return `${Number((value / limit).toPrecision(3))}${unit}`;
  return String(Number(value.toPrecision(3)));
}

export const numberText = value => String(Number(value.toPrecision(3)));
export const signedText = value =>
  value === 0 ? "0" : (value > 0 ? "+" : "\u2212") + Math.abs(Number(value.toPrecision(3)));

// Ticks at 1, 2 or 5 times a power of ten.
function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough), ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high, count) {
  if (high / low < 8) return linearTicks(low, high, count);
  const ticks = [], factors = high / low > 1e4 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) ticks.push(factor * 10 ** power);
  return ticks.filter(tick => tick >= low && tick <= high);
}

export class Scale {
  constructor(low, high, start, end, isLog) {
    this.isLog = isLog && low > 0;
    if (!(high > low)) [low, high] = this.isLog ? [low / 1.1, low * 1.1] : [low - 1, low + 1];
    Object.assign(this, {low, high, start, end});
    const [a, b] = this.isLog ? [Math.log(low), Math.log(high)] : [low, high];
    this.offset = a;
    this.factor = (end - start) / (b - a);
  }
  at(value) {
    return this.start + ((this.isLog ? Math.log(value) : value) - this.offset) * this.factor;
  }
  ticks(count) {
    return (this.isLog ? logTicks : linearTicks)(this.low, this.high, count);
  }
}
