"use strict";
// The still page: a map with values and geodesics that were computed beforehand.
(() => {
  const host = document.getElementById("twin"), data = JSON.parse(document.getElementById("twin-data").textContent);
  const element = KV.element, fields = Object.keys(data.fields);

  const readout = element("p", { className: "readout", "aria-hidden": "true" }, "\u00a0");
  const live = element("p", { role: "status", "aria-live": "polite" }, data.pairs.length ? "Choose a pair in the table." : "");
  const strips = element("div");
  const place = element("div"), side = element("div");
  const layer = element("select", { onchange: () => colour(layer.value) }, ...fields.map(name => element("option", { value: name }, data.fields[name].title)));
  const controls = element("div", { className: "controls" }, element("label", {}, "Colour ", layer));
  host.append(element("div", { className: "twin" }, element("div", {}, controls, place, readout), side), strips);

  const map = new KV.Map(place, { label: "Latent plane; arrow keys pan, plus and minus zoom.", hover });
  map.names = data.names;
  map.whole = data.window;
  map.setCodes(data.codes ?? [], data.labels);
  map.show(data.window);
  readout.after(element("div", { className: "classes", role: "group", "aria-label": "Classes shown" }, ...map.classButtons(data.labels)));
  const colour = name => {
    const field = data.fields[name];
    map.setField(field, data.colours[field.colours], field.unit, field.title);
    map.root.dataset.layer = name;
  };
  colour(fields[0]);

  function hover(where) {
    if (!where) map.indicatrix(null);
    readout.textContent = where ? map.words(where) : "\u00a0";
  }

  function show(pair) {
    const shapes = [{ class: "straight", points: pair.line.points }];
    if (pair.points) shapes.push({ class: "geodesic", points: pair.points });
    map.setShapes(shapes);
    map.setPoint("a", pair.line.points[0], `Medoid of class ${pair.names[0]}`);
    map.setPoint("b", pair.line.points[1], `Medoid of class ${pair.names[1]}`);
    live.textContent = `Class ${pair.names.join(" to class ")}: ${pair.words}`;
    strips.replaceChildren(...[["along the geodesic", pair.frames], ["along the straight line", pair.line.frames]].filter(([, found]) => found).map(([words, found]) => KV.strip(words, found)));
    for (const button of side.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.pair === pair.names.join("-"));
  }
  if (data.pairs.length) {
    const rows = data.pairs.map(pair => element("tr", {}, element("th", { scope: "row" }, element("button", { type: "button", "aria-pressed": "false", "data-pair": pair.names.join("-"), onclick: () => show(pair) }, pair.names.join(" – "))),
      element("td", {}, KV.format(pair.length, 6)), element("td", {}, KV.format(pair.line.length, 6)), element("td", {}, pair.points ? `${KV.format(100 * (pair.line.length / pair.length - 1), 2)}%` : "not found")));
    side.append(element("div", { className: "scroll pairs" }, element("table", {}, element("thead", {}, element("tr", {}, ...["classes", "geodesic", "straight line", "longer by"].map(head => element("th", { scope: "col" }, head)))), element("tbody", {}, ...rows))), live);
    show(data.pairs[0]);
  }
})();
