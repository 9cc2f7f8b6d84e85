"use strict";
// The explorer: what is asked of the server, and how its answers are shown.
(() => {
  const $ = id => document.getElementById(id);
  const TOOLS = {
    path: ["Geodesic", "Click two points; drag them, or move them by arrow keys. A third click begins again."],
    ball: ["Ball", "Click a centre: the geodesic circles of a third, two thirds and all of the radius."],
    exp: ["Exp", "Click a point, then drag the arrow's end: the geodesic that it begins, until t = 1."],
    transport: ["Transport", "Click A and B, then drag the arrow's end: it is carried in parallel along the geodesic."],
    analogy: ["Analogy", "Click A, B and C: A is to B as C is to what?"],
    cluster: ["Clusters", "Fit k-means with geodesic distances, or normal laws of this geometry, to the codes."],
  };
  const NEEDS = { path: ["a", "b"], ball: ["a"], exp: ["a", "v"], transport: ["a", "b", "v"], analogy: ["a", "b", "c"], cluster: [] };
  const state = { layer: "", basis: 0, i: 0, j: 1, held: [], tool: "path", a: null, b: null, c: null, v: null, radius: 1, kind: "kmeans", components: 4, window: null };
  let about, map, answer = {}, clusters = null;

  // ------------------------------------------------------------ asking
  // Of each kind one question at a time; while a point moves the newest waits, and none in between is ever asked.
  const asking = new Map();
  async function ask(kind, body, shown) {
    const before = asking.get(kind);
    if (before) {
      if (body.moving) { before.next = [body, shown]; return; }
      before.next = null;
      before.abort.abort();
    }
    const own = { abort: new AbortController(), next: null };
    asking.set(kind, own);
    try {
      const response = await fetch(`ask/${kind}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: own.abort.signal });
      if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
      const reader = response.body.getReader(), decoder = new TextDecoder();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        rest += decoder.decode(value ?? new Uint8Array(), { stream: !done });
        const lines = rest.split("\n");
        rest = lines.pop();
        for (const line of lines) if (line && asking.get(kind) === own) shown(JSON.parse(line));
        if (done) break;
      }
    } catch (error) {
      if (error.name !== "AbortError" && asking.get(kind) === own) shown({ error: error instanceof TypeError ? "The explorer does not answer: has its command ended?" : error.message });
    } finally {
      if (asking.get(kind) === own) {
        asking.delete(kind);
        if (own.next) ask(kind, ...own.next);
      }
    }
  }
  function cancel(kind) {
    const own = asking.get(kind);
    if (own) { own.next = null; own.abort.abort(); asking.delete(kind); }
    fetch("cancel", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ kind }) });
  }

  const drop = (...kinds) => { for (const kind of kinds) if (asking.has(kind)) cancel(kind); };

  // ------------------------------------------------------------ the plane
  const basis = () => about.bases[state.basis];
  const dot = (u, v) => u.reduce((sum, x, k) => sum + x * v[k], 0);
  const coordinates = z => basis().axes.map(axis => dot(axis, z.map((x, k) => x - basis().centre[k])));
  const project = z => { const c = coordinates(z); return [c[state.i], c[state.j]]; };
  const lift = ([x, y]) => {
    const c = state.held.slice();
    c[state.i] = x; c[state.j] = y;
    return basis().centre.map((m, k) => m + c.reduce((sum, s, n) => sum + s * basis().axes[n][k], 0));
  };
  const plane = () => {
    const axes = [basis().axes[state.i], basis().axes[state.j]];
    return { origin: lift([0, 0]), axes };
  };
  const off = z => { // how far a point is from the plane
    const c = coordinates(z);
    return Math.hypot(...c.map((x, n) => n === state.i || n === state.j ? 0 : x - state.held[n]));
  };
  const spanned = () => {
    const places = (about.codes || about.corners)?.map(project) || [[-2, -2], [2, 2]];
    const [xs, ys] = [0, 1].map(k => places.map(p => p[k]));
    const range = v => [Math.min(...v), Math.max(...v)];
    const [[l, r], [b, t]] = [range(xs), range(ys)], half = Math.max(r - l, t - b, 1e-3) * .62;
    return [(l + r) / 2 - half, (l + r) / 2 + half, (b + t) / 2 - half, (b + t) / 2 + half];
  };

  function planeChanged() {
    map.names = [basis().labels[state.i], basis().labels[state.j]];
    map.whole = spanned();
    map.setCodes(about.codes ? about.codes.map(project) : [], about.labels);
    drawHeld();
    drop("map"); // its colours are of another plane
    map.setField(null);
    map.show(map.whole);
    redraw();
  }
  let waiting;
  function viewChanged() { state.window = map.window.slice(); remember(); clearTimeout(waiting); waiting = setTimeout(askMap, 200); }
  function askMap() {
    const layer = about.layers[state.layer];
    ask("map", { layer: state.layer, plane: plane(), window: map.window }, ({ news, result, error }) => {
      problem("map-error", error);
      const field = result ?? news;
      if (!field) return;
      map.setField(field, about.colours[layer.colours], layer.unit, layer.title);
      map.root.dataset.size = field.size;
      map.root.dataset.layer = state.layer;
      if (result && field.undefined === field.size ** 2) problem("map-error", `${layer.title} is not defined anywhere in this window.`);
    });
  }
  function hover(place) {
    if (!place) map.indicatrix(null);
    $("readout").textContent = place ? map.words(place) : "\u00a0";
  }

  // ------------------------------------------------------------ points
  const tip = () => state.a.map((x, k) => x + state.v[k]);
  function place(where, name) {
    if (state.tool === "cluster" || !about.known) return;
    const code = $("snap").checked ? map.nearestCode(where, 6) : null;
    const z = code === null ? lift(where) : about.codes[code];
    const order = NEEDS[state.tool].filter(each => each !== "v");
    if (!name) {
      name = order.find(each => !state[each]);
      if (!name) { for (const each of order) state[each] = null; state.v = null; name = order[0]; answer = {}; problem("error"); }
    }
    state[name] = z;
    if (NEEDS[state.tool].includes("v") && !state.v && state.a) setArrow();
    redraw();
    compute();
  }
  function setArrow() {
    const [l, r] = map.window, size = (r - l) / 8, origin = plane().axes;
    state.v = origin[0].map((x, k) => size * (.8 * x + .6 * origin[1][k]));
  }
  function move(name, where, moving) {
    const from = name === "v" ? tip() : state[name], [x, y] = project(from), axes = plane().axes;
    const z = from.map((value, k) => value + (where[0] - x) * axes[0][k] + (where[1] - y) * axes[1][k]);
    if (name === "v") state.v = z.map((value, k) => value - state.a[k]);
    else state[name] = z;
    redraw();
    compute(moving);
  }
  const ready = () => NEEDS[state.tool].every(each => state[each]);

  // ------------------------------------------------------------ computing
  let begun = 0;
  function compute(moving = false) {
    remember();
    if (state.tool === "cluster") { showInputs(); return; }
    if (!ready()) { // what is still on its way is of other points
      drop(state.tool, "path", "tighten");
      busy(null);
      $("result").replaceChildren(); $("frames").replaceChildren(); $("live").textContent = "";
      showInputs();
      return;
    }
    drop("tighten");
    const { a, b, c, v } = state, tool = state.tool;
    if (moving && (tool === "analogy" || tool === "transport")) { showInputs(); return; }
    const body = { path: { a, b }, ball: { centre: a, radius: state.radius, plane: plane() }, exp: { a, vector: v }, transport: { a, b, vector: v }, analogy: { a, b, c } }[tool];
    begun = performance.now();
    busy(tool, moving ? "" : tool === "path" ? "searching" : "computing");
    problem("error");
    ask(tool, { ...body, moving }, message => received(tool, message));
    if (tool === "transport" && !moving) ask("path", { a, b, moving: true }, message => { if (message.result) { answer.path = message.result; redraw(); } });
    showInputs();
  }
  function received(tool, { news, result, error, cancelled }) {
    if (tool !== state.tool) return;
    const found = result ?? news;
    if (tool === "path" && found && !found.points) problem("error", found.words);
    if (found && found.progress !== undefined) { busy(tool, found.words, found.progress); return; }
    if (found) {
      if (tool === "cluster") clusters = found; else answer[tool] = found;
      show(tool, found);
      redraw();
      document.body.dataset.milliseconds = Math.round(performance.now() - begun);
    }
    if (result || error || cancelled) busy(null);
    if (error) { delete answer[tool]; $("result").replaceChildren(); $("frames").replaceChildren(); $("live").textContent = ""; problem("error", error); redraw(); }
    if (news && tool === "path") busy(tool, news.stage === "rough" ? "refining" : "looking for other geodesics");
  }
  function busy(tool, words = "", share) {
    $("busy").hidden = !tool || !words;
    $("busy").dataset.kind = tool ?? "";
    $("busy-words").textContent = words;
    if (share === undefined) $("progress").removeAttribute("value"); else $("progress").value = share;
    document.body.dataset.busy = tool ? "yes" : "";
  }
  function problem(id, words) { $(id).hidden = !words; $(id).textContent = words ?? ""; }

  // ------------------------------------------------------------ showing
  const cell = (...content) => KV.element("td", {}, ...content);
  const row = (head, ...cells) => KV.element("tr", {}, KV.element("th", { scope: "row" }, ...[head].flat()), ...cells);
  const key = name => KV.element("span", { className: `key ${name}` });
  const note = words => KV.element("p", { className: "note" }, words);
  const onTable = found => found.table ? [note(`Read off a table of the metric, within ${KV.format(100 * found.table, 2)}% at 99% of its places.`)] : [];

  const SHOWS = {
    path(found) {
      const line = found.line;
      const parts = [row([key(""), "Geodesic"], KV.element("td", { id: "length", className: "number" }, KV.format(found.length, 8)))];
      if (line) parts.push(row([key("straight"), "Straight line"], KV.element("td", { id: "straight", className: "number" }, KV.format(line.length, 8))));
      if (found.bounds) {
        const { lower, upper, proved } = found.bounds;
        parts.push(row("Distance", cell(`${lower > 0 ? `from ${KV.format(lower, 8)} ` : ""}to ${KV.format(upper, 9)}, ${proved ? "proved" : "estimated"}`)));
        if (about.dimension === 2) parts.push(row("Lower bound", KV.element("td", { id: "tightened" }, KV.element("button", { type: "button", onclick: tighten }, "compute"))));
      }
      const others = found.others.map((other, n) => row([key("other"), `Another, ${n + 1}`], cell(KV.format(other.length, 7), other.status === "MINIMUM" ? "" : ", no minimum")));
      const all = [KV.element("table", {}, KV.element("tbody", {}, ...parts, ...others)), note(found.words)];
      if (found.stage !== "rough" && found.points) all.push(note(`${found.agreeing} of ${found.starts} first guesses led here; estimated excess ${KV.format(found.gap, 2)} of its length, Morse index ${found.morse_index}.${found.stage === "whole" && !found.others.length ? " No other geodesic was met." : ""}`));
      if (found.stage === "rough") all.push(note("A first answer, to four digits."), ...onTable(found));
      $("live").textContent = found.points ? `Geodesic ${KV.format(found.length, 5)}${line ? `, straight line ${KV.format(line.length, 5)} (${KV.format(100 * (line.length / found.length - 1), 2)}% longer)` : ""}` : "No geodesic found";
      frames([["along the geodesic", found.frames], ["along the straight line", line?.frames]]);
      return all;
    },
    ball(found) {
      $("live").textContent = `Geodesic ball of radius ${KV.format(found.radius, 4)}`;
      const rows = found.radii.map(r => row("circle of radius", cell(KV.format(r, 4))));
      const lost = found.lost ? [note(`${found.lost} of ${found.rays} geodesics do not arrive: they leave the domain, or the metric is nearly degenerate on their way.`)] : [];
      const flat = about.dimension > 2 ? [note("The geodesics leave the plane: their ends are shown as they project on it.")] : [];
      return [KV.element("table", {}, KV.element("tbody", {}, ...rows)), ...lost, ...flat, ...onTable(found)];
    },
    exp(found) {
      $("live").textContent = `exp of a vector of length ${KV.format(found.length, 5)}`;
      frames([["at its end", found.frames]]);
      return [KV.element("table", {}, KV.element("tbody", {}, row("Length", cell(KV.format(found.length, 6))), row("Ends at", cell(list(found.end))))), ...onTable(found)];
    },
    transport(found) {
      const norms = found.norms;
      $("live").textContent = `Carried from norm ${KV.format(norms[0], 5)} to norm ${KV.format(norms.at(-1), 5)}`;
      return [KV.element("table", {}, KV.element("tbody", {}, row("Norm before", cell(KV.format(norms[0], 6))), row("Norm after", cell(KV.format(norms.at(-1), 6))), row("At B it is", cell(list(found.vectors.at(-1)))), row("Estimated error", cell(KV.format(found.error, 2))))), note("Exact transport keeps the norm.")];
    },
    analogy(found) {
      $("live").textContent = found.answer ? `Answer ${list(found.answer)}` : found.words;
      const lengths = Object.entries(found.lengths).map(([name, length]) => row({ first: "A to B", across: "A to C", last: "C to the answer" }[name], cell(KV.format(length, 6))));
      frames([["A, B, C, " + (found.answer ? "answer, " : "") + "C + B − A", found.frames]]);
      return [KV.element("table", {}, KV.element("tbody", {}, ...(found.answer ? [row([key(""), "Answer"], cell(list(found.answer)))] : []), row([key("straight"), "C + B − A"], cell(list(found.arithmetic))), ...lengths)), ...onTable(found)];
    },
    cluster(found) {
      const centres = found.centres.map((centre, n) => row(`Centre ${n + 1}`, cell(list(centre) + (found.weights ? `, weight ${KV.format(found.weights[n], 3)}` : ""))));
      const says = found.kind === "kmeans" ? `mean squared distance ${KV.format(found.inertia, 5)}${found.settled ? "" : ", not settled"}` : `${KV.format(found.likelihood, 5)} nats per code${found.left_out ? `, without ${found.left_out} codes that no geodesic reached` : ""}`;
      $("live").textContent = `${found.kind === "kmeans" ? "k-means" : "Normal laws"} fitted: ${says}`;
      const explained = found.kind === "kmeans" ? (found.lines.length ? "Borders are found by shortest paths on a grid, to a few per cent." : "Borders are drawn in latent planes alone.") : "Contours hold 50%, 90% and 99% of the density in this window, by the chart's measure.";
      return [KV.element("table", {}, KV.element("tbody", {}, ...centres)), note(explained), ...onTable(found)];
    },
  };
  const list = z => z.map(x => KV.format(x, 4)).join(", ");
  function show(tool, found) { $("result").replaceChildren(...SHOWS[tool](found)); }
  function frames(rows) { $("frames").replaceChildren(...rows.filter(([, found]) => found).map(([words, found]) => KV.strip(words, found))); }
  function tighten() {
    const place = $("tightened"); // a later answer's table has another
    place.textContent = "computing …";
    ask("tighten", { a: state.a, b: state.b }, ({ result, error }) => {
      place.textContent = error ?? (result ? `${KV.format(result.inside, 6)} of all curves in a box about the codes, ${result.proved ? "proved" : "estimated"}` : "");
    });
  }
  function redraw() {
    const shapes = [], line = (name, points, more = {}) => points && shapes.push({ class: name, points: points.map(p => p.every(x => x !== null) ? project(p) : null), ...more });
    const { path, ball, exp, transport, analogy } = answer, tool = state.tool;
    if (clusters) {
      for (const { line: border } of clusters.lines) shapes.push({ group: "regions", class: "border", points: border.map(project) });
      for (const centre of clusters.centres) shapes.push({ group: "arrows", kind: "mark", class: "centre", points: [project(centre)] });
    }
    const pair = state.a && state.b;
    if (tool === "path" && pair) {
      line("straight", [state.a, state.b], { says: "straight line" });
      for (const other of path?.others ?? []) line("other", other.points, { says: "another geodesic" });
      line("geodesic", path?.points, { says: "geodesic" });
    }
    if (tool === "transport" && pair) line("geodesic", path?.points);
    if (tool === "ball" && ball) for (const ring of ball.rings) line("ring", [...ring, ring[0]]);
    if (tool === "exp" && exp) line("geodesic", exp.points);
    const arrow = (from, by, name = "arrow") => shapes.push({ group: "arrows", kind: "arrow", class: name, points: [project(from), project(from.map((x, k) => x + by[k]))] });
    if (tool === "transport" && transport) transport.vectors.forEach((u, n) => arrow(transport.points[n], u));
    if (NEEDS[tool].includes("v") && state.a && state.v) arrow(state.a, state.v, "straight");
    if (tool === "analogy" && analogy) {
      line("other", analogy.across); line("geodesic", analogy.first); line("geodesic", analogy.last);
      line("straight", [state.c, analogy.arithmetic]);
      shapes.push({ group: "arrows", kind: "mark", class: "centre", points: [project(analogy.arithmetic)] });
    }
    map.setShapes(shapes);
    for (const name of ["a", "b", "c"]) map.setPoint(name, NEEDS[tool].includes(name) && state[name] ? project(state[name]) : null, `Point ${name.toUpperCase()}, arrow keys move it`);
    map.setPoint("v", NEEDS[tool].includes("v") && state.a && state.v ? project(tip()) : null, "End of the arrow, arrow keys move it");
    map.setPoint("d", tool === "analogy" && analogy?.answer ? project(analogy.answer) : null, "The answer");
  }

  // ------------------------------------------------------------ controls
  const choose = (select, pairs, value) => select.replaceChildren(...pairs.map(([v, text]) => KV.element("option", { value: v, selected: String(v) === String(value) }, text)));
  function sayHeld(rest) {
    const all = rest.every(([n]) => state.held[n] === state.held[rest[0][0]]);
    $("held").firstElementChild.textContent = `The other coordinates are held${!rest.length ? "" : all ? ` at ${KV.format(state.held[rest[0][0]], 3)}` : `: ${rest.map(([n, label]) => `${label} ${KV.format(state.held[n], 3)}`).join(", ")}`}`;
  }
  function drawHeld() {
    const labels = basis().labels, some = labels.map((label, n) => [n, label]);
    choose($("first"), some, state.i);
    choose($("second"), some, state.j);
    const rest = some.filter(([n]) => n !== state.i && n !== state.j);
    $("held").hidden = !rest.length;
    sayHeld(rest);
    $("held-list").replaceChildren(...rest.map(([n, label]) => KV.element("label", {}, `${label} `,
      KV.element("input", { type: "number", step: "0.1", value: Number(state.held[n].toPrecision(5)), onchange: event => {
        const x = Number(event.target.value);
        if (!Number.isFinite(x)) return;
        state.held[n] = x;
        sayHeld(rest);
        viewChanged();
        compute();
      } }))));
  }
  function chooseTool(tool) {
    drop(...[...asking.keys()].filter(kind => kind !== "map"));
    if (!about.known) {
      $("hint").textContent = "A stored field has no metric to compute with: these are its colours. With its model too, explore CHECKPOINT --field STORE, there are geodesics.";
      return;
    }
    state.tool = tool;
    busy(null);
    problem("error");
    for (const button of $("tools").children) { button.setAttribute("aria-checked", button.dataset.tool === tool); button.tabIndex = button.dataset.tool === tool ? 0 : -1; }
    $("hint").textContent = TOOLS[tool][1];
    $("result").replaceChildren();
    $("frames").replaceChildren();
    $("live").textContent = "";
    if (NEEDS[tool].includes("v") && state.a && !state.v) setArrow();
    showInputs();
    redraw();
    compute();
  }
  function showInputs() {
    const typed = document.activeElement?.dataset?.point;
    if (typed && $("inputs").dataset.tool === state.tool) { // do not take a field away from under the fingers
      for (const input of $("inputs").querySelectorAll("[data-point]")) if (input.dataset.point !== typed && state[input.dataset.point]) input.value = state[input.dataset.point].map(x => Number(x.toPrecision(6))).join(", ");
      return;
    }
    if ($("inputs").contains(document.activeElement) && $("inputs").dataset.tool === state.tool) return;
    $("inputs").dataset.tool = state.tool;
    const fields = NEEDS[state.tool].map(name => KV.element("label", {}, { a: state.tool === "ball" ? "centre" : "A", b: "B", c: "C", v: "vector" }[name],
      KV.element("input", { type: "text", inputMode: "text", value: state[name] ? state[name].map(x => Number(x.toPrecision(6))).join(", ") : "", placeholder: about.coordinates.join(", "), "data-point": name, onchange: typedPoint })));
    if (state.tool === "cluster") fields.push(fitting());
    if (state.tool !== "cluster") fields.push(KV.element("div", { className: "row" }, KV.element("label", { htmlFor: "radius" }, state.tool === "ball" ? "radius" : "length of the indicatrix"),
      KV.element("input", { id: "radius", type: "range", min: -2, max: 1.5, step: .05, value: Math.log10(state.radius), "aria-valuetext": KV.format(state.radius, 2), oninput: event => {
        state.radius = map.radius = 10 ** Number(event.target.value);
        event.target.nextSibling.textContent = KV.format(state.radius, 2);
        event.target.setAttribute("aria-valuetext", KV.format(state.radius, 2));
        if (state.tool === "ball") compute(true); else remember();
      } }), KV.element("span", {}, KV.format(state.radius, 2))));
    $("inputs").replaceChildren(...fields);
  }
  function typedPoint(event) {
    const name = event.target.dataset.point, values = event.target.value.split(",").map(x => Number(x.trim().replace("−", "-")));
    if (values.length !== about.dimension || values.some(x => !Number.isFinite(x))) {
      cancel(state.tool); // its answer would take these words away
      busy(null);
      problem("error", `Expected ${about.dimension} numbers with commas between them.`);
      return;
    }
    state[name] = values;
    if (NEEDS[state.tool].includes("v") && !state.v && state.a) setArrow();
    redraw();
    compute();
  }
  function fitting() {
    const count = KV.element("input", { type: "number", min: 1, max: 12, value: state.components, "aria-label": "how many", onchange: event => { state.components = Math.max(1, Math.min(12, Math.round(Number(event.target.value)) || 1)); remember(); } });
    const kinds = [["kmeans", "k-means regions"], ...(about.dimension === 2 ? [["land", "normal laws (LAND)"]] : [])];
    const kind = KV.element("select", { "aria-label": "what is fitted", onchange: event => { state.kind = event.target.value; remember(); } });
    choose(kind, kinds, state.kind);
    const start = KV.element("button", { type: "button", id: "fit", disabled: !about.codes, onclick: () => {
      problem("error");
      begun = performance.now();
      busy("cluster", "beginning", 0);
      const [l, r, b, t] = map.window; // of the latents themselves, where they are a plane
      ask("cluster", { kind: state.kind, components: state.components, window: state.i > state.j ? [b, t, l, r] : [l, r, b, t] }, message => received("cluster", message));
    } }, "Fit");
    return KV.element("div", { className: "row" }, count, kind, start);
  }
  // ------------------------------------------------------------ the address remembers
  const numbers = z => z.map(x => Number(x.toPrecision(9))).join(",");
  function remember() {
    const kept = new URLSearchParams({ layer: state.layer, basis: state.basis, axes: `${state.i},${state.j}`, tool: state.tool, radius: Number(state.radius.toPrecision(4)) });
    if (about.dimension > 2) kept.set("held", numbers(state.held));
    if (state.window) kept.set("window", numbers(state.window));
    for (const name of "abcv") if (state[name]) kept.set(name, numbers(state[name]));
    history.replaceState(null, "", `#${kept}`);
  }
  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1)), d = about.dimension;
    const read = (name, size) => { const z = (kept.get(name) ?? "").split(",").map(Number); return kept.get(name) && z.length === size && z.every(Number.isFinite) ? z : null; };
    if (kept.get("layer") in about.layers) state.layer = kept.get("layer");
    if (about.bases[Number(kept.get("basis"))]) state.basis = Number(kept.get("basis"));
    const axes = read("axes", 2);
    if (axes && axes[0] !== axes[1] && axes.every(n => Number.isInteger(n) && n >= 0 && n < d)) [state.i, state.j] = axes;
    state.held = read("held", d) ?? state.held;
    for (const name of "abcv") state[name] = read(name, d);
    if (kept.get("tool") in TOOLS) state.tool = kept.get("tool");
    const radius = Number(kept.get("radius"));
    if (radius > 0 && radius < 1e3) state.radius = radius;
    return read("window", 4);
  }

  // ------------------------------------------------------------ export
  async function python() {
    const body = { tool: state.tool, vector: state.v, radius: state.radius, plane: plane(), window: map.window, layer: state.layer, kind: state.kind, components: state.components };
    for (const name of NEEDS[state.tool]) if (name !== "v") body[name] = state[name];
    ask("recipe", body, ({ result, error }) => {
      $("lines").textContent = error ?? result?.lines ?? "";
      if (!$("python").open) $("python").showModal();
    });
  }
  const said = words => { $("live").textContent = words; };
  const copy = async (text, words) => { try { await navigator.clipboard.writeText(text); said(words); } catch { said("The browser does not let pages copy; select it by hand."); } };

  async function start() {
    const response = await fetch("about");
    if (!response.ok) throw new Error(await response.text());
    about = await response.json();
    $("name").textContent = about.name;
    document.title = `${about.name} – kahler_verify explorer`;
    $("about").textContent = `${about.dimension} ${about.complex ? "real coordinates of complex latents" : "latent coordinates"}${about.codes ? `, ${about.codes.length} codes` : ""}`;
    state.layer = Object.keys(about.layers)[0];
    state.held = about.coordinates.map(() => 0);
    if (about.complex) state.j = about.dimension / 2;
    const window_ = recall();
    map = new KV.Map($("map"), { label: "Latent plane. Click or press Enter to place points; arrow keys pan, plus and minus zoom.",
      place, move: (name, where) => name !== "d" && move(name, where, true), moved: (name, where) => name !== "d" && move(name, where, false), hover, changed: viewChanged });
    map.radius = state.radius;
    choose($("layer"), Object.entries(about.layers).map(([name, { title }]) => [name, title]), state.layer);
    $("layer").onchange = event => { state.layer = event.target.value; remember(); askMap(); };
    $("basis-label").hidden = about.bases.length < 2 || about.dimension < 3;
    choose($("basis"), about.bases.map(({ name }, n) => [n, name]), state.basis);
    $("basis").onchange = event => { state.basis = Number(event.target.value); [state.i, state.j] = [0, 1]; state.held = about.coordinates.map(() => 0); planeChanged(); compute(); };
    for (const [id, own, other] of [["first", "i", "j"], ["second", "j", "i"]]) $(id).onchange = event => {
      const n = Number(event.target.value);
      if (n === state[other]) state[other] = state[own];
      state[own] = n;
      planeChanged();
      if (state.tool === "ball") compute(); // it begins in the plane
    };
    $("tools").hidden = !about.known;
    $("snap").parentElement.hidden = !about.codes;
    $("tools").replaceChildren(...Object.entries(TOOLS).map(([tool, [title]]) => KV.element("button", { type: "button", role: "radio", "data-tool": tool, onclick: () => chooseTool(tool) }, title)));
    $("tools").onkeydown = event => {
      const names = Object.keys(TOOLS), step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      chooseTool(names[(names.indexOf(state.tool) + step + names.length) % names.length]);
      $("tools").querySelector("[aria-checked=true]").focus();
    };
    $("cancel").onclick = () => { cancel($("busy").dataset.kind); busy(null); said("Cancelled."); };
    $("save-png").onclick = async () => KV.download("latent-plane.png", await map.png(), "image/png");
    $("save-svg").onclick = () => KV.download("latent-plane.svg", map.standalone().text, "image/svg+xml");
    $("show-python").onclick = python;
    $("close-python").onclick = () => $("python").close();
    $("copy-lines").onclick = () => copy($("lines").textContent, "Copied.");
    $("copy-link").onclick = () => copy(location.href, "Link copied: it works as long as this explorer runs.");
    $("classes").replaceChildren(...map.classButtons(about.labels));
    planeChanged();
    if (window_) map.show(window_);
    chooseTool(state.tool);
    window.addEventListener("hashchange", () => location.reload());
  }
  start().catch(error => problem("map-error", error.message));
})();
