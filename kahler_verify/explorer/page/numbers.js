"use strict";
// Numbers, colours and small DOM words that the explorer and the still page share.
const KV = {};
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  // Petroff's ten colours, told apart by colour-blind readers; shapes help where there are more.
  KV.CLASSES = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];

  KV.format = (x, digits = 5) => {
    if (x === null || x === undefined || !Number.isFinite(x)) return "–";
    if (x === 0) return "0";
    const size = Math.abs(x);
    if (size >= 1e6 || size < 1e-4) return x.toExponential(2).replace("-", "−").replace("e+", "e");
    return String(Number(x.toPrecision(digits))).replace("-", "−");
  };
  KV.element = (name, properties = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key in made && !key.startsWith("aria") && key !== "role") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children); // strings become text, never markup
    return made;
  };
  KV.svg = (name, attributes = {}, ...children) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  KV.rgb = (table, share) => {
    const hex = table[Math.max(0, Math.min(table.length - 1, Math.round(share * (table.length - 1))))];
    return [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
  };
  // Bilinear interpolation of `width` numbers a place on a grid over a window; null outside, or where unknown.
  KV.interpolated = (values, size, width, [left, right, bottom, top], x, y) => {
    const u = (x - left) / (right - left) * (size - 1), v = (y - bottom) / (top - bottom) * (size - 1);
    if (!(u >= 0 && v >= 0 && u <= size - 1 && v <= size - 1)) return null;
    const i = Math.min(size - 2, Math.floor(u)), j = Math.min(size - 2, Math.floor(v)), s = u - i, t = v - j;
    const out = [];
    for (let k = 0; k < width; k++) {
      const at = (a, b) => values[((j + b) * size + i + a) * width + k];
      const four = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
      if (four.some(f => f === null)) return null;
      out.push((1 - t) * ((1 - s) * four[0] + s * four[1]) + t * ((1 - s) * four[2] + s * four[3]));
    }
    return out;
  };
  // {u : E u² + 2 F u v + G v² = r²} as half-axes and an angle; null if it is no ellipse.
  KV.ellipse = ([E, F, G], radius) => {
    const half = (E + G) / 2, gap = Math.hypot((E - G) / 2, F);
    if (!(half - gap > 0)) return null;
    return { long: radius / Math.sqrt(half - gap), short: radius / Math.sqrt(half + gap), angle: Math.atan2(2 * F, E - G) / 2 + Math.PI / 2 };
  };
  KV.ticks = (low, high, about = 6) => {
    const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= raw), out = [];
    for (let x = Math.ceil(low / step) * step; x <= high + 1e-9 * step; x += step) out.push(Math.abs(x) < 1e-9 * step ? 0 : x);
    return out;
  };
  KV.download = (name, content, type) => {
    const link = KV.element("a", { href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
})();
