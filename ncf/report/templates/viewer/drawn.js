// Drawn over the slices: the deformed grid, arrows of the map, landmarks, and which slice each one is.
(function () {
  const CELL = 2; // pixels of an outline
  const PITCH = 26; // lines along the longer side of a slice
  const BLUE = "#56b4e9", ORANGE = "#e69f00";
  const PLANES = [[0, 1, 2], [0, 2, 1], [1, 2, 0]]; // axial, coronal, sagittal: across, down, through

  function places(nv, tile, plane) { // from mm to pixels of the canvas in one tile; along each axis a line
    const [l, t, w, h] = tile.leftTopWidthHeight, at = (x, y) => nv.screenXY2mm(x, y);
    const a = at(l + 0.3 * w, t + 0.3 * h), b = at(l + 0.7 * w, t + 0.7 * h), [u, v] = plane;
    const across = 0.4 * w / (b[u] - a[u]), down = 0.4 * h / (b[v] - a[v]);
    if (!isFinite(across) || !isFinite(down)) return null;
    return {
      px: (mm) => [l + 0.3 * w + (mm[u] - a[u]) * across, t + 0.3 * h + (mm[v] - a[v]) * down],
      mm: (x, y) => [a[u] + (x - l - 0.3 * w) / across, a[v] + (y - t - 0.3 * h) / down],
    };
  }
  function nodes(tile, to, plane) { // lattice of fixed points in a slice, and where the map brings them
    const [l, t, w, h] = tile.leftTopWidthHeight, [u, v, through] = plane, pitch = Math.max(w, h) / PITCH, rows = [];
    const size = V.volumes.field_x;
    for (let y = t + pitch / 2; y < t + h; y += pitch) {
      const row = [];
      for (let x = l + pitch / 2; x < l + w; x += pitch) {
        const [a, b] = to.mm(x, y), point = [0, 0, 0];
        point[u] = a; point[v] = b; point[through] = V.state.mm[through];
        const at = V.times(size.back, point);
        const inside = at.every((value, k) => value > -0.6 && value < size.shape[k] - 0.4);
        row.push(inside ? { from: to.px(point), to: to.px(V.toMoving(point)) } : null);
      }
      rows.push(row);
    }
    return rows;
  }
  function outlines(panel, context, tile, to, plane, name, dotted) { // between pixels of which one is in a label
    const [l, t, w, h] = tile.leftTopWidthHeight, cols = Math.ceil(w / CELL), rows = Math.ceil(h / CELL), volume = V.volumes[name];
    const point = panel.mm.slice(), paths = new Map(), above = new Uint16Array(cols);
    for (let r = 0; r < rows; r++) for (let c = 0, before = 0; c < cols; c++) {
      [point[plane[0]], point[plane[1]]] = to.mm(l + (c + 0.5) * CELL, t + (r + 0.5) * CELL);
      let code = V.valueAt(volume, point) || 0;
      if (V.state.hidden.has(code)) code = 0;
      const x = l + c * CELL, y = t + r * CELL, upper = above[c];
      const add = (of, ...ends) => { if (!paths.has(of)) paths.set(of, []); paths.get(of).push(ends); };
      if (!dotted || (c + r) % 4 < 2) {
        if (c && code !== before) add(code || before, x, y, x, y + CELL);
        if (r && code !== upper) add(code || upper, x, y, x + CELL, y);
      }
      above[c] = before = code;
    }
    for (const label of V.scene.labels) {
      context.strokeStyle = "rgb(" + V.labelColour(label).join(",") + ")";
      context.beginPath();
      for (const [a, b, c, d] of paths.get(label.value) || []) { context.moveTo(a, b); context.lineTo(c, d); }
      context.stroke();
    }
  }
  V.outlines = outlines;
  function line(context, a, b) { if (a && b) { context.moveTo(...a); context.lineTo(...b); } }
  function grid(context, rows) {
    rows.forEach((row, r) => row.forEach(function (node, c) {
      if (!node) return;
      if (row[c + 1]) line(context, node.to, row[c + 1].to);
      if (rows[r + 1] && rows[r + 1][c]) line(context, node.to, rows[r + 1][c].to);
    }));
  }
  function arrows(context, rows) {
    for (const node of rows.flat()) {
      if (!node) continue;
      const [x, y] = node.to, dx = x - node.from[0], dy = y - node.from[1], length = Math.hypot(dx, dy);
      if (length < 1.5) continue;
      const head = Math.min(6, length / 2);
      line(context, node.from, node.to);
      for (const turn of [0.45, -0.45]) {
        const angle = Math.atan2(dy, dx) + Math.PI + turn;
        line(context, node.to, [x + head * Math.cos(angle), y + head * Math.sin(angle)]);
      }
    }
  }
  function landmarks(panel, context, to, plane, clip) { // within a voxel or two of the slice; the worst in yellow
    const left = panel.side === "left", key = left || V.state.second === "warped" ? "fixed_mm" : "moving_mm", through = plane[2];
    V.scene.landmarks.forEach(function (mark, rank) {
      if (Math.abs(mark[key][through] - panel.mm[through]) > 1.5 * V.scene.step_mm[through]) return;
      const [x, y] = to.px(mark[key]);
      if (x < clip[0] || y < clip[1] || x > clip[0] + clip[2] || y > clip[1] + clip[3]) return;
      context.strokeStyle = rank === 0 ? "#ffd600" : left ? BLUE : ORANGE;
      context.fillStyle = context.strokeStyle;
      context.beginPath();
      context.arc(x, y, rank === 0 ? 7 : 4, 0, 2 * Math.PI);
      context.stroke();
      if (rank === 0) context.fillText("worst: " + mark.number, x + 9, y - 9);
      if (key === "fixed_mm" && left) { // where the map brings it, and where it should be
        context.beginPath();
        line(context, to.px(V.toMoving(mark.fixed_mm)), to.px(mark.moving_mm));
        context.stroke();
      }
    });
  }
  const EDGES = [["R", "L", "A", "P"], ["R", "L", "S", "I"], ["A", "P", "S", "I"]]; // left, right, top, bottom
  function letters(context, tile) { // on dark boxes, because a scan is white there as often as black
    const [l, t, w, h] = tile.leftTopWidthHeight, inset = 10;
    const places = [[l + inset, t + h / 2], [l + w - inset, t + h / 2], [l + w / 2, t + inset], [l + w / 2, t + h - inset]];
    context.textAlign = "center";
    context.textBaseline = "middle";
    places.forEach(function ([x, y], k) {
      context.fillStyle = "rgba(0,0,0,.6)";
      context.fillRect(x - 8, y - 9, 16, 18);
      context.fillStyle = "#fff";
      context.fillText(EDGES[tile.axCorSag][k], x, y);
    });
    context.textAlign = "start";
    context.textBaseline = "alphabetic";
  }
  V.drawOver = function (panel) {
    const { nv, canvas, drawn } = panel;
    if (drawn.width !== canvas.width || drawn.height !== canvas.height) { drawn.width = canvas.width; drawn.height = canvas.height; }
    const context = drawn.getContext("2d");
    context.clearRect(0, 0, drawn.width, drawn.height);
    if (!V.state || !panel.mm || !nv.volumes.length) return;
    context.font = "600 13px sans-serif";
    for (const tile of nv.screenSlices) {
      const plane = PLANES[tile.axCorSag], to = plane && places(nv, tile, plane);
      if (!to) continue;
      context.save();
      context.beginPath();
      context.rect(...tile.leftTopWidthHeight);
      context.clip();
      context.lineWidth = 1.2;
      if (panel.side === "left") V.drawSwipe(panel, context, tile, to, plane);
      if (panel.side === "left" && V.state.motion !== "none") {
        context.strokeStyle = ORANGE;
        context.beginPath();
        (V.state.motion === "grid" ? grid : arrows)(context, nodes(tile, to, plane));
        context.stroke();
      }
      if (V.state.margins && (panel.side === "left" || V.state.second === "warped")) {
        outlines(panel, context, tile, to, plane, "warped_inner", false);
        outlines(panel, context, tile, to, plane, "warped_outer", true);
      }
      if (V.state.landmarks) landmarks(panel, context, to, plane, tile.leftTopWidthHeight);
      letters(context, tile);
      context.restore();
    }
  };
})();
