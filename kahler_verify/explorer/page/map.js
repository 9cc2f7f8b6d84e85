"use strict";
// A latent plane as one SVG: a coloured field, codes, curves, arrows, and points that can be moved.
(() => {
  const LEFT = 46, TOP = 10, RIGHT = 12, BELOW = 86, LEAST = 280, MOST = 900;
  const SHAPES = [
    r => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    r => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    r => `M0,${-1.25 * r}L${1.15 * r},${.85 * r}H${-1.15 * r}z`,
    r => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
    r => `M0,${1.25 * r}L${1.15 * r},${-.85 * r}H${-1.15 * r}z`,
  ];
  KV.shape = (label, radius) => { // the shapes move on by one after five classes
    const own = ((label % 10) + 10) % 10;
    return SHAPES[(own + Math.floor(own / 5)) % SHAPES.length](radius);
  };
  KV.classColour = label => label === null ? "#e8ecf1" : KV.CLASSES[((label % 10) + 10) % 10];

  KV.Map = class {
    constructor(host, { label, place, move, moved, hover, changed }) {
      Object.assign(this, { host, place, move, moved, hover, changed, window: [-3, 3, -3, 3], points: new Map(), hidden: new Set() });
      this.codes = []; this.labels = null; this.radius = 1; this.names = ["", ""];
      this.root = KV.svg("svg", { class: "latent-map", role: "group", "aria-label": label, tabindex: "0" });
      this.zoom = KV.element("div", { className: "zoom" },
        ...[["+", "Zoom in", .7], ["−", "Zoom out", 1 / .7], ["⟲", "Show all", 0]].map(([text, title, factor]) =>
          KV.element("button", { type: "button", title, "aria-label": title, onclick: () => factor ? this.zoomBy(factor) : this.show(this.whole) }, text)));
      host.append(this.zoom, this.root);
      this.clip = `clip-${Math.random().toString(36).slice(2)}`;
      this.rect = KV.svg("rect");
      this.root.append(KV.svg("defs", {}, KV.svg("clipPath", { id: this.clip }, this.rect)));
      this.void = KV.svg("rect", { class: "void" });
      this.image = KV.svg("image", { preserveAspectRatio: "none" });
      this.groups = {};
      const inside = KV.svg("g", { "clip-path": `url(#${this.clip})` }, this.void, this.image);
      for (const name of ["regions", "codes", "curves", "arrows", "cursor"]) inside.append(this.groups[name] = KV.svg("g"));
      this.groups.axes = KV.svg("g");
      this.groups.points = KV.svg("g");
      this.root.append(inside, this.groups.axes, this.groups.points);
      this.shapes = [];
      this.listen();
      new ResizeObserver(() => this.draw()).observe(host);
    }

    // ---------------------------------------------------------- places
    get size() { return Math.max(LEAST, Math.min(MOST, this.host.clientWidth || 600)) - LEFT - RIGHT; }
    x(u) { return LEFT + (u - this.window[0]) / (this.window[1] - this.window[0]) * this.size; }
    y(v) { return TOP + (this.window[3] - v) / (this.window[3] - this.window[2]) * this.size; }
    at(event) {
      const box = this.root.getBoundingClientRect(), scale = (this.size + LEFT + RIGHT) / box.width;
      const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
      const [l, r, b, t] = this.window;
      const inside = px >= LEFT && px <= LEFT + this.size && py >= TOP && py <= TOP + this.size;
      return { place: [l + (px - LEFT) / this.size * (r - l), t - (py - TOP) / this.size * (t - b)], inside };
    }
    show(window) { this.window = window.slice(); this.draw(); this.changed?.(); }
    zoomBy(factor, about) {
      const [l, r, b, t] = this.window, [x, y] = about ?? [(l + r) / 2, (b + t) / 2];
      if ((r - l) * factor > 1e4 || (r - l) * factor < 1e-6) return;
      this.show([x + (l - x) * factor, x + (r - x) * factor, y + (b - y) * factor, y + (t - y) * factor]);
    }
    pan(dx, dy) { const [l, r, b, t] = this.window; this.show([l + dx, r + dx, b + dy, t + dy]); }

    // ---------------------------------------------------------- what is shown
    setField(field, colours, unit, title) { // none: nothing is known of this plane yet
      Object.assign(this, { field, colours, unit, title });
      if (!field) { this.image.removeAttribute("href"); this.draw(); return; }
      const { size, values, range } = field, canvas = KV.element("canvas", { width: size, height: size });
      const pixels = canvas.getContext("2d").createImageData(size, size);
      for (let j = 0; j < size; j++) for (let i = 0; i < size; i++) {
        const value = values[(size - 1 - j) * size + i], at = 4 * (j * size + i);
        if (value === null) continue; // transparent: not defined
        const [r, g, b] = KV.rgb(colours, (value - range[0]) / (range[1] - range[0]));
        pixels.data.set([r, g, b, 255], at);
      }
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      this.image.setAttribute("href", canvas.toDataURL());
      this.draw();
    }
    setCodes(codes, labels) { this.codes = codes; this.labels = labels; this.draw(); }
    // shapes: {group, kind: "line"|"arrow"|"mark", class, points}
    setShapes(shapes) { this.shapes = shapes; this.drawShapes(); }
    setPoint(name, place, says) {
      if (!place) { this.points.get(name)?.node.remove(); this.points.delete(name); return; }
      let point = this.points.get(name);
      if (!point) {
        const node = KV.svg("g", { class: "point", tabindex: "0", role: "slider", "data-name": name },
          KV.svg("circle", { class: "reach", r: "18" }), KV.svg("circle", { class: "dot", r: name === "v" ? "5.5" : "8.5" }), KV.svg("text", { y: "4.2" }));
        node.lastChild.textContent = name === "v" ? "" : name.toUpperCase();
        point = { node };
        this.points.set(name, point);
        this.groups.points.append(node);
        node.addEventListener("keydown", event => this.key(event, name));
      }
      point.place = place;
      point.node.setAttribute("aria-label", says);
      point.node.setAttribute("aria-valuetext", place.map(x => KV.format(x, 4)).join(", "));
      point.node.setAttribute("aria-valuenow", KV.format(place[0], 4).replace("−", "-"));
      this.drawPoints();
    }

    // ---------------------------------------------------------- drawing
    draw() {
      const size = this.size, width = size + LEFT + RIGHT, height = size + TOP + BELOW;
      this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
      for (const box of [this.rect, this.void]) for (const [k, v] of Object.entries({ x: LEFT, y: TOP, width: size, height: size })) box.setAttribute(k, v);
      if (this.field) {
        const [l, r, b, t] = this.field.window, cell = (r - l) / (this.field.size - 1) / 2;
        const left = this.x(l - cell), top = this.y(t + cell);
        for (const [k, v] of Object.entries({ x: left, y: top, width: this.x(r + cell) - left, height: this.y(b - cell) - top })) this.image.setAttribute(k, v);
      }
      this.drawAxes();
      const radius = this.codes.length > 600 ? 2.4 : 3.6;
      this.groups.codes.replaceChildren(...this.codes.flatMap(([u, v], n) => {
        const label = this.labels ? this.labels[n] : null;
        if (this.hidden.has(label)) return [];
        return [KV.svg("path", { class: "code", d: KV.shape(label ?? 0, radius), fill: KV.classColour(label), transform: `translate(${this.x(u).toFixed(1)} ${this.y(v).toFixed(1)})` })];
      }));
      this.drawShapes();
      this.drawPoints();
    }
    drawAxes() {
      const size = this.size, bottom = TOP + size, made = [KV.svg("rect", { class: "frame", x: LEFT, y: TOP, width: size, height: size })];
      const text = (content, x, y, anchor, more = {}) => { const t = KV.svg("text", { x, y, "text-anchor": anchor, ...more }); t.textContent = content; made.push(t); };
      const about = size < 380 ? 4 : 6;
      for (const u of KV.ticks(this.window[0], this.window[1], about)) {
        made.push(KV.svg("path", { class: "tick", d: `M${this.x(u)},${bottom}v4` }));
        text(KV.format(u, 4), this.x(u), bottom + 16, "middle");
      }
      for (const v of KV.ticks(this.window[2], this.window[3], about)) {
        made.push(KV.svg("path", { class: "tick", d: `M${LEFT},${this.y(v)}h-4` }));
        text(KV.format(v, 4), LEFT - 7, this.y(v) + 4, "end");
      }
      text(this.names[0], LEFT + size / 2, bottom + 32, "middle");
      text(this.names[1], 11, TOP + size / 2, "middle", { transform: `rotate(-90 11 ${TOP + size / 2})` });
      if (this.field) {
        const [low, high] = this.field.range, y = bottom + 42, id = `${this.clip}-bar`;
        const stops = this.colours.filter((_, n) => n % 8 === 0 || n === this.colours.length - 1)
          .map((colour, n, all) => KV.svg("stop", { offset: n / (all.length - 1), "stop-color": colour }));
        made.push(KV.svg("defs", {}, KV.svg("linearGradient", { id }, ...stops)));
        made.push(KV.svg("rect", { x: LEFT, y, width: size, height: 11, fill: `url(#${id})`, stroke: "none" }));
        const apart = low + (high - low) / 2;
        text(KV.format(low, 3), LEFT, y + 24, "start");
        text(KV.format(high, 3), LEFT + size, y + 24, "end");
        if (size > 420) text(KV.format(apart, 3), LEFT + size / 2, y + 24, "middle");
        text(size > 420 ? `${this.title}: ${this.unit}` : this.unit, LEFT + size / 2, y + (size > 420 ? 38 : 24), "middle");
      }
      this.groups.axes.replaceChildren(...made);
    }
    path(points) { return points.filter(drawable).map(([u, v]) => `${this.x(u).toFixed(2)},${this.y(v).toFixed(2)}`).join(" "); }
    drawShapes() {
      const found = { regions: [], curves: [], arrows: [] };
      for (const { group = "curves", kind = "line", class: name, points, says } of this.shapes) {
        if (kind === "line") {
          for (const piece of pieces(points)) {
            found[group].push(KV.svg("polyline", { class: group === "curves" ? "halo" : "halo thin", points: this.path(piece) }));
            const line = KV.svg("polyline", { class: name, points: this.path(piece) });
            if (says) line.append(Object.assign(KV.svg("title"), { textContent: says }));
            found[group].push(line);
          }
        } else if (kind === "arrow") {
          const [[x0, y0], [x1, y1]] = points.map(([u, v]) => [this.x(u), this.y(v)]);
          const length = Math.hypot(x1 - x0, y1 - y0) || 1, a = (x1 - x0) / length * 8, b = (y1 - y0) / length * 8;
          const head = `M${x0},${y0}L${x1},${y1}M${x1 - a + b / 1.6},${y1 - b - a / 1.6}L${x1},${y1}L${x1 - a - b / 1.6},${y1 - b + a / 1.6}`;
          found[group].push(KV.svg("path", { class: "halo", d: head, fill: "none" }), KV.svg("path", { class: name, d: head, fill: "none" }));
        } else {
          const [x, y] = [this.x(points[0][0]), this.y(points[0][1])];
          found[group].push(KV.svg("path", { class: "halo", fill: "none", d: `M${x - 7},${y}h14M${x},${y - 7}v14` }), KV.svg("path", { class: name, d: `M${x - 7},${y}h14M${x},${y - 7}v14` }));
        }
      }
      for (const [name, nodes] of Object.entries(found)) this.groups[name].replaceChildren(...nodes);
    }
    drawPoints() {
      for (const { node, place } of this.points.values()) {
        const [l, r, b, t] = this.window, out = place[0] < l || place[0] > r || place[1] < b || place[1] > t;
        node.style.display = out ? "none" : "";
        if (!out) node.setAttribute("transform", `translate(${this.x(place[0]).toFixed(2)} ${this.y(place[1]).toFixed(2)})`);
      }
    }
    // The curve of tangent vectors of one length at a place.
    indicatrix(place) {
      const field = this.field, g = place && field?.metric && KV.interpolated(field.metric, field.metric_size, 3, field.window, ...place);
      const shape = g && KV.ellipse(g, this.radius);
      if (!shape) { this.groups.cursor.replaceChildren(); return null; }
      const scale = this.size / (this.window[1] - this.window[0]);
      const given = { cx: 0, cy: 0, rx: shape.long * scale, ry: shape.short * scale, transform: `translate(${this.x(place[0])} ${this.y(place[1])}) rotate(${-shape.angle * 180 / Math.PI})` };
      this.groups.cursor.replaceChildren(KV.svg("ellipse", { class: "indicatrix-halo", ...given }), KV.svg("ellipse", { class: "indicatrix", ...given }));
      return shape;
    }
    value(place) {
      const field = this.field;
      if (!field) return null;
      const [l, r, b, t] = field.window, i = Math.round((place[0] - l) / (r - l) * (field.size - 1)), j = Math.round((place[1] - b) / (t - b) * (field.size - 1));
      return i < 0 || j < 0 || i >= field.size || j >= field.size ? null : field.values[j * field.size + i];
    }
    // Buttons that show and hide the classes of codes, and are their legend.
    classButtons(labels) {
      return [...new Set(labels ?? [])].sort((x, y) => x - y).slice(0, 40).map(label => {
        const mark = KV.svg("svg", { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, KV.svg("path", { d: KV.shape(label, 5), fill: KV.classColour(label) }));
        return KV.element("button", { type: "button", "aria-pressed": "true", title: `class ${label}: show or hide`, onclick: event => {
          const hide = !this.hidden.has(label);
          this.hidden[hide ? "add" : "delete"](label);
          event.currentTarget.setAttribute("aria-pressed", !hide);
          this.draw();
        } }, mark, String(label));
      });
    }
    // What there is to say of a place: its coordinates, the field, the indicatrix drawn there, a code.
    words(place) {
      const shape = this.indicatrix(place), code = this.nearestCode(place), value = this.value(place);
      const out = [`${this.names[0]} ${KV.format(place[0], 3)}, ${this.names[1]} ${KV.format(place[1], 3)}`];
      if (value !== null) out.push(`${this.title.toLowerCase()} ${KV.format(value, 4)}`);
      if (shape) out.push(`indicatrix of length ${KV.format(this.radius, 2)}: ${KV.format(shape.long, 2)} by ${KV.format(shape.short, 2)}`);
      if (code !== null) out.push(`code ${code}${this.labels ? `, class ${this.labels[code]}` : ""}`);
      return out.join(" · ");
    }
    nearestCode(place, pixels = 8) {
      const reach = pixels * (this.window[1] - this.window[0]) / this.size;
      let best = null, least = reach;
      this.codes.forEach(([u, v], n) => {
        const away = Math.hypot(u - place[0], v - place[1]);
        if (away < least && !this.hidden.has(this.labels ? this.labels[n] : null)) [best, least] = [n, away];
      });
      return best;
    }

    // ---------------------------------------------------------- pointer and keys
    listen() {
      let grip = null; // {name} of a point, or {from, window} of the plane
      const frame = { asked: false };
      this.root.addEventListener("pointerdown", event => {
        if (event.button) return;
        const point = event.target.closest?.(".point"), { place, inside } = this.at(event);
        if (!point && !inside) return;
        this.root.setPointerCapture(event.pointerId);
        grip = point ? { name: point.dataset.name } : { from: [event.clientX, event.clientY], place, window: this.window.slice(), dragged: false };
        if (point) point.focus({ preventScroll: true });
        event.preventDefault();
      });
      this.root.addEventListener("pointermove", event => {
        const { place, inside } = this.at(event);
        if (!grip) { this.hover?.(inside ? place : null); return; }
        if (grip.name) {
          const [l, r, b, t] = this.window;
          grip.last = [Math.min(r, Math.max(l, place[0])), Math.min(t, Math.max(b, place[1]))];
          if (!frame.asked) { // once a frame
            frame.asked = true;
            requestAnimationFrame(() => { frame.asked = false; if (grip?.name && grip.last) this.move?.(grip.name, grip.last); });
          }
          return;
        }
        const dx = event.clientX - grip.from[0], dy = event.clientY - grip.from[1];
        if (!grip.dragged && Math.hypot(dx, dy) < 5) return;
        grip.dragged = true;
        const scale = (grip.window[1] - grip.window[0]) / this.size * (this.size + LEFT + RIGHT) / this.root.getBoundingClientRect().width;
        const [l, r, b, t] = grip.window;
        this.window = [l - dx * scale, r - dx * scale, b + dy * scale, t + dy * scale];
        this.draw();
      });
      const end = event => {
        if (!grip) return;
        const held = grip;
        grip = null;
        if (event.type === "pointercancel") return;
        if (held.name) { if (held.last) this.moved?.(held.name, held.last); }
        else if (held.dragged) this.changed?.();
        else this.place?.(held.place);
      };
      this.root.addEventListener("pointerup", end);
      this.root.addEventListener("pointercancel", end);
      this.root.addEventListener("pointerleave", () => this.hover?.(null));
      this.root.addEventListener("wheel", event => {
        const { place, inside } = this.at(event);
        if (!inside) return;
        event.preventDefault();
        this.zoomBy(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), place);
      }, { passive: false });
      this.root.addEventListener("keydown", event => {
        if (event.target !== this.root) return;
        const step = (this.window[1] - this.window[0]) / 10, [dx, dy] = ARROWS[event.key] ?? [0, 0];
        if (dx || dy) this.pan(dx * step, dy * step);
        else if (event.key === "+" || event.key === "=") this.zoomBy(.7);
        else if (event.key === "-") this.zoomBy(1 / .7);
        else if (event.key === "Enter" || event.key === " ") this.place?.([(this.window[0] + this.window[1]) / 2, (this.window[2] + this.window[3]) / 2]);
        else return;
        event.preventDefault();
      });
    }
    key(event, name) {
      const [dx, dy] = ARROWS[event.key] ?? [0, 0];
      if (!dx && !dy) return;
      event.preventDefault();
      event.stopPropagation();
      const step = (this.window[1] - this.window[0]) / (event.shiftKey ? 20 : 200), [u, v] = this.points.get(name).place;
      this.moved?.(name, [u + dx * step, v + dy * step]);
    }

    // ---------------------------------------------------------- files
    standalone() {
      const copy = this.root.cloneNode(true), own = this.root.querySelectorAll("*");
      copy.querySelectorAll("*").forEach((node, n) => {
        const style = getComputedStyle(own[n]);
        for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight", "text-anchor", "stroke-linejoin"]) {
          if (node.tagName !== "stop" && !(name === "fill" && node.getAttribute("fill"))) node.style.setProperty(name, style.getPropertyValue(name));
        }
        if (node.tagName === "text") node.style.fontFamily = "sans-serif";
      });
      const [, , width, height] = this.root.getAttribute("viewBox").split(" ").map(Number);
      copy.setAttribute("width", width);
      copy.setAttribute("height", height);
      copy.prepend(KV.svg("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }));
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      return { text: new XMLSerializer().serializeToString(copy), width, height };
    }
    async png() {
      const { text, width, height } = this.standalone(), image = new Image();
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
      await image.decode();
      const canvas = KV.element("canvas", { width: 2 * width, height: 2 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
      return new Promise(done => canvas.toBlob(done, "image/png"));
    }
  };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const drawable = place => place && place.every(x => Number.isFinite(x) && Math.abs(x) < 1e7);
  // A line with gaps, as its parts.
  const pieces = points => points.reduce((out, p) => {
    if (drawable(p)) out[out.length - 1].push(p); else out.push([]);
    return out;
  }, [[]]).filter(piece => piece.length > 1);
})();
