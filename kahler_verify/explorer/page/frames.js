"use strict";
// What is decoded along curves: a row of images, or of profiles.
(() => {
  const GAP = 2, TALL = 60, WIDE = 110;

  // frames: {shape: [h, w] | [h, w, 3] | [n], frames: [[0 … 255]]}
  KV.strip = (words, found, captions) => {
    const row = KV.element("div", { className: "strip" }, KV.element("span", {}, words));
    const says = `${words}: ${found.frames.length} decoded frames`;
    row.append(found.shape.length === 1 ? profiles(found, says) : images(found, says));
    if (captions) row.lastChild.setAttribute("aria-label", `${words}: ${captions.join(", ")}`);
    return row;
  };
  const images = ({ shape: [h, w, channels = 1], frames }, says) => {
    const scale = Math.max(1, Math.floor(64 / h)), step = w * scale + GAP;
    const canvas = KV.element("canvas", { width: frames.length * step - GAP, height: h * scale, role: "img", "aria-label": says });
    const context = canvas.getContext("2d"), small = KV.element("canvas", { width: w, height: h });
    context.imageSmoothingEnabled = false;
    frames.forEach((values, n) => {
      const pixels = small.getContext("2d").createImageData(w, h);
      for (let k = 0; k < h * w; k++) {
        const at = c => values[k * channels + (channels === 3 ? c : 0)];
        pixels.data.set([at(0), at(1), at(2), 255], 4 * k);
      }
      small.getContext("2d").putImageData(pixels, 0, 0);
      context.drawImage(small, n * step, 0, w * scale, h * scale);
    });
    canvas.style.maxWidth = `min(100%, ${canvas.width}px)`;
    return canvas;
  };
  const profiles = ({ frames, low, high }, says) => {
    const made = KV.svg("svg", { viewBox: `0 0 ${frames.length * WIDE} ${TALL}`, role: "img", "aria-label": `${says}, from ${KV.format(low)} to ${KV.format(high)}` });
    frames.forEach((values, n) => {
      const step = (WIDE - 8) / Math.max(1, values.length - 1);
      const points = values.map((v, k) => `${(n * WIDE + 4 + k * step).toFixed(1)},${(TALL - 4 - v / 255 * (TALL - 8)).toFixed(1)}`).join(" ");
      made.append(KV.svg("polyline", { points, fill: "none", stroke: "currentColor" }));
    });
    return made;
  };
})();
