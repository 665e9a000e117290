"use strict";
// Composes every picture from grey values of three scans and a map of volumes; nothing is loaded from anywhere.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const state = { picture: "moving", when: "after", slices: data.views.map((v) => v.start), low: 0, high: 255, cross: true };
  const byId = (id) => document.getElementById(id);
  const views = [];
  const legends = {
    fixed: () => "The fixed scan.",
    moving: () => state.when === "after"
      ? "The moving scan after registration, on the fixed grid."
      : "The moving scan before registration, placed by " + data.placed_by + ".",
    difference: () => ramp(data.colours.difference) + "Moving minus fixed scan, " + state.when +
      " registration: blue is darker than the fixed scan, red brighter, white equal. " +
      swatch(data.colours.no_data) + "no data of the moving scan.",
    checkerboard: () => "Fixed and moving scan (" + state.when + " registration) in squares: edges should run through.",
    contours: () => swatch(data.colours.fixed_line) + "labels of the fixed scan " + swatch(data.colours.moving_line) +
      "labels of the moving scan, " + state.when + " registration; on the fixed scan.",
    grid: () => state.when === "after"
      ? "The same grid, carried by the map onto the moving scan as it was before: each node has gone along with its anatomy. " +
        "What moves through the slice cannot be seen here."
      : "A regular grid on the fixed scan.",
    volume: () => ramp(data.colours.volume) + "Jacobian determinant, from half (violet, smaller in the moving scan) " +
      "over unchanged (no tint) to double (green, larger). The fixed scan shines through. " +
      swatch(data.colours.fold) + (data.folded ? "folds." : "would be folds; there are none."),
  };

  function rgb(colour) { return "rgb(" + colour.join(",") + ")"; }
  function swatch(colour) { return '<span class="swatch" style="background:' + rgb(colour) + '"></span>'; }
  function ramp(scale) {
    return '<span class="swatch ramp" style="background:linear-gradient(90deg,' + scale.map(rgb).join(",") + ')"></span>';
  }
  function table(scale) { // 256 colours along a scale of three
    return Array.from({ length: 256 }, function (_, i) {
      const at = i / 255 * (scale.length - 1), k = Math.min(Math.floor(at), scale.length - 2), t = at - k;
      return [0, 1, 2].map((c) => scale[k][c] * (1 - t) + scale[k + 1][c] * t);
    });
  }
  const tables = { difference: table(data.colours.difference), volume: table(data.colours.volume) };

  async function grey(uri) { // the bytes of a sprite
    const image = new Image();
    await new Promise(function (resolve, reject) { // image.decode() waits for a frame that a printer never draws
      image.onload = resolve;
      image.onerror = reject;
      image.src = uri;
    });
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    const bytes = new Uint8Array(image.width * image.height);
    for (let i = 0; i < bytes.length; i++) bytes[i] = pixels[4 * i];
    return { bytes: bytes, width: image.width };
  }
  function slice(view, name, number) { // (rows * columns) of one cell
    const sheet = view.sheets[name], own = view.told;
    if (!sheet) return null;
    const left = number % own.sheet_columns * own.cell[1], top = Math.floor(number / own.sheet_columns) * own.cell[0];
    const found = new Uint8Array(own.rows * own.columns);
    for (let r = 0; r < own.rows; r++) {
      const start = (top + r) * sheet.width + left;
      found.set(sheet.bytes.subarray(start, start + own.columns), r * own.columns);
    }
    return found;
  }
  function window_(value) { return Math.max(0, Math.min(255, (value - state.low) / (state.high - state.low) * 255)); }

  function pixels(view, number) { // ImageData of the picture of a slice
    const own = view.told, moving = slice(view, state.when, number), fixed = slice(view, "fixed", number);
    const volume = state.picture === "volume" ? slice(view, "volume", number) : null;
    const folds = volume ? slice(view, "folds", number) : null;
    const nothing = state.picture === "difference" ? slice(view, "nothing", number) : null;
    const bit = state.when === "before" ? 1 : 2;
    const background = state.picture === "grid" && state.when === "after" ? slice(view, "before", number) : fixed;
    const image = new ImageData(own.columns, own.rows), out = image.data;
    const side = Math.max(own.columns * own.size_mm[0], own.rows * own.size_mm[1]) / data.checks;
    for (let r = 0, i = 0; r < own.rows; r++) {
      for (let c = 0; c < own.columns; c++, i++) {
        let colour;
        if (state.picture === "difference") {
          const step = (window_(moving[i]) - window_(fixed[i])) / 255 / data.difference_range;
          colour = tables.difference[Math.round(255 * Math.max(0, Math.min(1, 0.5 + step / 2)))];
          if (nothing && nothing[i] & bit) colour = data.colours.no_data;
        } else if (volume) {
          const f = window_(fixed[i]), s = data.shines_through;
          colour = folds && folds[i] ? data.colours.fold : tables.volume[volume[i]].map((v) => v * (1 - s) + f * s);
        } else {
          let value = background[i];
          if (state.picture === "moving") value = moving[i];
          if (state.picture === "checkerboard") {
            const square = Math.floor(r * own.size_mm[1] / side) + Math.floor(c * own.size_mm[0] / side);
            value = square % 2 ? moving[i] : fixed[i];
          }
          value = window_(value);
          colour = [value, value, value];
        }
        out[4 * i] = colour[0]; out[4 * i + 1] = colour[1]; out[4 * i + 2] = colour[2]; out[4 * i + 3] = 255;
      }
    }
    return image;
  }

  function contours(view, context, labels, colour, scale) {
    const own = view.told;
    context.strokeStyle = rgb(colour);
    context.beginPath();
    for (let r = 0; r < own.rows; r++) {
      for (let c = 0; c < own.columns; c++) {
        const i = r * own.columns + c;
        if (c + 1 < own.columns && labels[i] !== labels[i + 1]) {
          context.moveTo((c + 1) * scale[0], r * scale[1]);
          context.lineTo((c + 1) * scale[0], (r + 1) * scale[1]);
        }
        if (r + 1 < own.rows && labels[i] !== labels[i + own.columns]) {
          context.moveTo(c * scale[0], (r + 1) * scale[1]);
          context.lineTo((c + 1) * scale[0], (r + 1) * scale[1]);
        }
      }
    }
    context.stroke();
  }
  function mesh(view, context, number, scale) {
    const m = view.told.mesh, size = m.rows * m.columns, at = [];
    const factor = state.when === "after" ? m.scale : 0;
    for (let r = 0, i = 0; r < m.rows; r++) {
      for (let c = 0; c < m.columns; c++, i++) {
        const x = c * m.steps[0] + 0.5 + factor * view.mesh[2 * number * size + i];
        const y = r * m.steps[1] + 0.5 + factor * view.mesh[(2 * number + 1) * size + i];
        at.push([x * scale[0], y * scale[1]]);
      }
    }
    context.strokeStyle = rgb(data.colours.moving_line);
    context.beginPath();
    for (let r = 0; r < m.rows; r++) for (let c = 0; c < m.columns; c++) {
      const i = r * m.columns + c;
      if (c + 1 < m.columns) { context.moveTo(at[i][0], at[i][1]); context.lineTo(at[i + 1][0], at[i + 1][1]); }
      if (r + 1 < m.rows) { context.moveTo(at[i][0], at[i][1]); context.lineTo(at[i + m.columns][0], at[i + m.columns][1]); }
    }
    context.stroke();
  }
  function letters(view, context, width, height, dot) {
    const places = [[0, 0.5], [1, 0.5], [0.5, 0], [0.5, 1]], inset = 10 * dot;
    context.font = "600 " + 13 * dot + "px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    places.forEach(function (place, k) {
      const x = Math.max(inset, Math.min(width - inset, place[0] * width));
      const y = Math.max(inset, Math.min(height - inset, place[1] * height));
      context.fillStyle = "rgba(0,0,0,.55)";
      context.fillRect(x - 8 * dot, y - 9 * dot, 16 * dot, 18 * dot);
      context.fillStyle = "#fff";
      context.fillText(view.told.letters[k], x, y);
    });
  }
  function cross(view, context, width, height) { // where the slices of the other two views run
    context.strokeStyle = "rgba(124,192,255,.45)";
    context.beginPath();
    views.forEach(function (other, k) {
      const index = other.told.slices[state.slices[k]];
      if (other.told.stacked === view.told.across) {
        const x = (index + 0.5) / data.shape[view.told.across] * width;
        context.moveTo(x, 0); context.lineTo(x, height);
      } else if (other.told.stacked === view.told.down) {
        const y = (index + 0.5) / data.shape[view.told.down] * height;
        context.moveTo(0, y); context.lineTo(width, y);
      }
    });
    context.stroke();
  }

  function draw(k) {
    const view = views[k], own = view.told, canvas = view.canvas, number = state.slices[k], dot = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * dot));
    const height = Math.max(1, Math.round(width * own.rows * own.size_mm[1] / (own.columns * own.size_mm[0])));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    view.small.getContext("2d").putImageData(pixels(view, number), 0, 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(view.small, 0, 0, width, height);
    const scale = [width / own.columns, height / own.rows];
    context.lineWidth = 1.3 * dot;
    if (state.picture === "contours") {
      const drawn = [["label_fixed", data.colours.fixed_line], ["label_" + state.when, data.colours.moving_line]];
      drawn.forEach(function (line) {
        const labels = slice(view, line[0], number);
        if (labels) contours(view, context, labels, line[1], scale);
      });
    }
    context.lineWidth = dot;
    if (state.picture === "grid") mesh(view, context, number, scale);
    if (state.cross) cross(view, context, width, height);
    letters(view, context, width, height, dot);
    const place = own.axis + " " + own.positions_mm[number] + " mm";
    const told = "slice " + (number + 1) + " of " + own.slices.length;
    view.where.textContent = told + ", " + place;
    view.slider.setAttribute("aria-valuetext", told + ", " + place);
    canvas.setAttribute("aria-label", own.name + " view, " + told + ": " + view.legend);
  }
  function drawAll() {
    byId("legend").innerHTML = legends[state.picture]();
    const text = byId("legend").textContent;
    views.forEach((view) => { view.legend = text; });
    document.querySelectorAll("[name=when]").forEach((input) => {
      input.disabled = state.picture === "fixed" || state.picture === "volume";
    });
    views.forEach((_, k) => draw(k));
  }
  function go(k, number) {
    state.slices[k] = Math.max(0, Math.min(views[k].told.slices.length - 1, number));
    views[k].slider.value = state.slices[k];
    if (state.cross) views.forEach((_, other) => draw(other)); else draw(k);
  }
  function point(k, event) { // the other views go to where the pointer is
    const own = views[k].told, box = views[k].canvas.getBoundingClientRect();
    const index = {};
    index[own.across] = (event.clientX - box.left) / box.width * data.shape[own.across] - 0.5;
    index[own.down] = (event.clientY - box.top) / box.height * data.shape[own.down] - 0.5;
    views.forEach(function (other, j) {
      const at = index[other.told.stacked];
      if (at === undefined) return;
      const away = other.told.slices.map((s) => Math.abs(s - at));
      state.slices[j] = away.indexOf(Math.min.apply(null, away));
      other.slider.value = state.slices[j];
    });
    views.forEach((_, other) => draw(other));
  }
  function choose(name, value) {
    const input = document.querySelector('[name="' + name + '"][value="' + value + '"]');
    if (!input || input.disabled) return;
    input.checked = true;
    state[name] = value;
    drawAll();
  }

  function listen() {
    for (const name of ["picture", "when"]) {
      document.querySelectorAll('[name="' + name + '"]').forEach((input) => {
        input.addEventListener("change", () => choose(name, input.value));
      });
    }
    views.forEach(function (view, k) {
      view.slider.addEventListener("input", () => go(k, Number(view.slider.value)));
      let pressed = false;
      view.canvas.addEventListener("pointerdown", (e) => { pressed = true; view.canvas.setPointerCapture(e.pointerId); point(k, e); });
      view.canvas.addEventListener("pointermove", (e) => { if (pressed) point(k, e); });
      view.canvas.addEventListener("pointerup", () => { pressed = false; });
      view.canvas.addEventListener("wheel", function (e) {
        if (e.ctrlKey) return;
        e.preventDefault();
        go(k, state.slices[k] + Math.sign(e.deltaY));
      }, { passive: false });
    });
    for (const id of ["brightness", "contrast"]) byId(id).addEventListener("input", levels);
    byId("cross").addEventListener("change", (e) => { state.cross = e.target.checked; drawAll(); });
    byId("reset").addEventListener("click", function () { byId("brightness").value = 0; byId("contrast").value = 0; levels(); });
    if (byId("folds")) byId("folds").addEventListener("click", function () {
      views.forEach((view, k) => { if (view.told.worst !== null) { state.slices[k] = view.told.worst; view.slider.value = view.told.worst; } });
      choose("picture", "volume");
    });
    document.addEventListener("keydown", function (e) {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      if (e.key === "b") choose("when", state.when === "after" ? "before" : "after");
      const picture = data.pictures[Number(e.key) - 1];
      if (picture) choose("picture", picture);
    });
    window.addEventListener("resize", drawAll);
  }
  function levels() { // the window: brighter is a lower level, more contrast a smaller width
    const width = 255 * Math.pow(2, -Number(byId("contrast").value) / 50);
    const level = 127.5 - Number(byId("brightness").value) * 1.2;
    state.low = level - width / 2;
    state.high = level + width / 2;
    drawAll();
  }

  async function begin() {
    for (let k = 0; k < data.views.length; k++) {
      const told = data.views[k], sheets = {}, small = document.createElement("canvas");
      for (const name of Object.keys(told.sprites)) sheets[name] = await grey(told.sprites[name]);
      told.sprites = null;
      small.width = told.columns;
      small.height = told.rows;
      const text = atob(told.mesh.bytes), mesh_ = new Int8Array(text.length);
      for (let i = 0; i < text.length; i++) mesh_[i] = text.charCodeAt(i);
      const box = byId("view-" + told.name);
      views.push({
        told: told, sheets: sheets, small: small, mesh: mesh_, legend: "", canvas: box.querySelector("canvas"),
        slider: box.querySelector("input"), where: box.querySelector("h3 span"),
      });
    }
    listen();
    drawAll();
    document.body.dataset.ready = "true";
  }
  begin();
})();
