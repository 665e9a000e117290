// Numbers at the crosshair and under the pointer, and the legend of the picture with its colour bar.
(function () {
  function number(value, digits) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    return Number.isInteger(value) && digits === undefined ? String(value) : value.toFixed(digits === undefined ? 2 : digits);
  }
  function unit(key) { return V.scene.windows[key].unit ? " " + V.scene.windows[key].unit : ""; }
  V.reading = function (mm) { // what is known at a fixed point
    const volumes = V.volumes, at = (name) => volumes[name] ? V.valueAt(volumes[name], mm) : undefined;
    const u = V.displacement(mm), moving = V.toMoving(mm), nothing = at("nothing_after");
    const label = at("fixed_label"), named = V.scene.labels.find((l) => l.value === label);
    const rows = [
      ["fixed", number(at("fixed")) + unit("fixed")],
      ["warped", nothing ? "no data" : number(at("warped")) + unit("warped")],
      ["fixed at", V.spoken(mm)],
      ["moving at", V.spoken(moving)],
      ["displacement", number(Math.hypot(...u), 2) + " mm (" + V.spoken(u).replace(" mm", "") + ")"],
      ["Jacobian", number(at("det"), 3)],
    ];
    if (volumes.fixed_label) rows.push(["label", label ? (named ? named.name : "label " + label) : "none"]);
    if (volumes.trust) rows.push(["error bound", at("trust") > 0 ? number(at("trust"), 1) + " mm (95 %, estimate)" : "not known"]);
    return rows;
  };
  V.readout = function () {
    const table = V.id("readout");
    table.replaceChildren(...V.reading(V.state.mm).map(function ([name, value]) {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.textContent = value;
      cell.dataset.name = name;
      row.append(head, cell);
      return row;
    }));
    V.id("canvas-left").setAttribute("aria-label", "Fixed scan, three slices at " + V.spoken(V.state.mm));
    V.id("canvas-right").setAttribute("aria-label", "Moving scan, three slices at " + V.spoken(V.right.mm));
  };
  V.hover = function (panel, event) {
    if (!panel) { V.id("pointer").textContent = ""; return; }
    const dot = panel.canvas.width / panel.canvas.clientWidth, nv = panel.nv;
    const x = event.offsetX * dot, y = event.offsetY * dot;
    const inTile = nv.screenSlices.some(function (tile) {
      const [l, t, w, h] = tile.leftTopWidthHeight;
      return x >= l && x < l + w && y >= t && y < t + h;
    });
    if (!inTile) { V.id("pointer").textContent = ""; return; }
    const mm = Array.from(nv.screenXY2mm(x, y)).slice(0, 3);
    const moving = panel.side === "right" && V.state.second === "before";
    const told = moving ? [["moving", number(V.valueAt(V.volumes.moving, mm)) + unit("warped")], ["at", V.spoken(mm)]]
      : V.reading(mm).filter(([name]) => ["fixed", "warped", "fixed at", "label"].includes(name));
    V.id("pointer").textContent = "pointer: " + told.map((pair) => pair.join(" ")).join("; ");
  };

  const texts = {
    fixed: () => "The fixed scan.",
    warped: () => "The moving scan on the fixed grid, by the map. Slate blue: it has no data there.",
    before: () => "The moving scan where " + V.scene.placed_by + " put it. Slate blue: it has no data there.",
    blend: () => "The fixed scan with the warped one over it (" + Math.round(100 * V.state.blend) + " %).",
    swipe: () => "Fixed to the left of the divider in each slice, warped to the right." + (V.state.labels ? " Labels are outlines." : ""),
    difference: () => "Warped minus fixed: blue is darker, red brighter, white equal; slate blue: no data.",
    checkerboard: () => "Fixed and warped in turn; edges run through where the map is right.",
    volume: () => "Jacobian determinant: green grows in the moving scan, violet shrinks, yellow folds.",
    trust: () => "Bound of the error of the map (95 %), an estimate that single errors exceed: yellow is far off, blue is near.",
  };
  function bar(colours, ticks) {
    const box = document.createElement("span"), ramp = document.createElement("span");
    box.className = "bar";
    ramp.className = "ramp";
    ramp.style.background = "linear-gradient(90deg," + colours.map((c) => "rgb(" + c.join(",") + ")").join(",") + ")";
    box.append(ramp, ...ticks.map(function (tick) { const t = document.createElement("span"); t.textContent = tick; return t; }));
    return box;
  }
  function ticksOf(range, unit_) {
    return [range[0], (range[0] + range[1]) / 2, range[1]].map((v) => number(Number(v.toPrecision(4))) + unit_);
  }
  V.legend = function () {
    const picture = V.state.picture, colours = V.scene.colours, shown = V.id("legend"), grey = [[0, 0, 0], [255, 255, 255]];
    let scale = bar(grey, ticksOf(V.state.windows.fixed, unit("fixed")));
    if (picture === "difference") {
      const range = V.differenceRange(), own = V.scene.shared ? unit("fixed") : " of the window";
      scale = bar(colours.difference, ticksOf([-range, range], own));
    }
    if (picture === "volume") scale = bar(colours.volume, ["0.5", "1", "2"]);
    if (picture === "trust") scale = bar(colours.trust, V.scene.bounds.ticks);
    shown.replaceChildren(texts[picture](), scale);
    if (!V.scene.shared) shown.append(" warped:", bar(grey, ticksOf(V.state.windows.warped, unit("warped"))));
  };
})();
