// What is laid over a scan: volumes made of the two scans, colours, and labels.
(function () {
  const CODES = { Uint8Array: 2, Int16Array: 4, Float32Array: 16, Uint16Array: 512 };
  const SQUARES = 8;

  const LABEL = 1002; // NIfTI's intent: NiiVue then takes every value as a label of its own, and 0 as nothing

  V.image = async function (volume, name, options) { // an NVImage; affine may be another than the volume's own
    const flat = (options.affine || volume.affine).flat(), a = options.affine || volume.affine;
    const sizes = [0, 1, 2].map((c) => Math.hypot(a[0][c], a[1][c], a[2][c]));
    const code = CODES[volume.values.constructor.name];
    const bytes = niivue.NVImage.createNiftiArray(volume.shape, sizes, flat, code, volume.values);
    const image = await niivue.NVImage.new(
      bytes.buffer, name + ".nii", options.colormap || "scan", 1, null, options.low, options.high, true, 0.02, false, false, "", 0);
    image.cal_min = options.low;
    image.cal_max = options.high;
    if (options.label) image.hdr.intent_code = LABEL;
    return image;
  };
  function along(scale, share) { // the colour at 0 to 1 of a scale of three
    const at = Math.max(0, Math.min(1, share)) * (scale.length - 1), k = Math.min(Math.floor(at), scale.length - 2);
    return [0, 1, 2].map((c) => Math.round(scale[k][c] * (1 - (at - k)) + scale[k + 1][c] * (at - k)));
  }
  function colourMap(colour) { // of 256 entries
    const I = Array.from({ length: 256 }, (_, i) => i), all = I.map((i) => colour(i / 255));
    return { R: all.map((c) => c[0]), G: all.map((c) => c[1]), B: all.map((c) => c[2]), A: I.map(() => 255), I: I };
  }
  V.addColours = function (nv) {
    const told = V.scene.colours;
    nv.addColormap("scan", { R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255], I: [0, 255] });
    nv.addColormap("difference", colourMap((share) => along(told.difference, share)));
    // determinants 0 to 2; the first entries are what folds, the rest is logarithmic from 1/2 to 2
    nv.addColormap("volume", colourMap((s) => s < 1.5 / 255 ? told.fold : along(told.volume, (Math.log2(2 * s) + 1) / 2)));
    const [near, middle, far] = told.trust, of = (c) => [near[c], near[c], middle[c], far[c]];
    nv.addColormap("trust", { R: of(0), G: of(1), B: of(2), A: [0, 255, 255, 255], I: [0, 1, 128, 255] });
  };
  V.labelColour = function (label) {
    const h = label.hue * 6, x = 1 - Math.abs(h % 2 - 1), k = Math.floor(h);
    const rgb = [[1, x, 0], [x, 1, 0], [0, 1, x], [0, x, 1], [x, 0, 1], [1, 0, x]][k % 6];
    return rgb.map((v) => Math.round(70 + 185 * v));
  };
  V.labelTable = function () { // for NiiVue; a hidden label is transparent
    const all = V.scene.labels, top = Math.max(...all.map((l) => l.value));
    const made = { R: [], G: [], B: [], A: [], I: [], labels: [] };
    const by = new Map(all.map((label) => [label.value, label]));
    for (let value = 0; value <= top; value++) {
      const label = by.get(value), c = label ? V.labelColour(label) : [0, 0, 0];
      made.R.push(c[0]); made.G.push(c[1]); made.B.push(c[2]);
      made.A.push(label && !V.state.hidden.has(value) ? 255 : 0);
      made.I.push(value); made.labels.push(label ? label.name : "");
    }
    return made;
  };
  const empty = { R: [0, 74], G: [0, 84], B: [0, 110], A: [0, 255], I: [0, 1], labels: ["", "no data"] };
  V.noData = async function (name) { // slate where the moving scan has no voxel
    const image = await V.image(V.volumes[name], name, { low: 0, high: 1, label: true });
    image.setColormapLabel(empty);
    return image;
  };

  function scaled(window, value) { return Math.max(0, Math.min(1, (value - window[0]) / (window[1] - window[0]))); }
  V.difference = function () { // warped minus fixed; in their unit where they share one, else in widths of the windows
    const f = V.volumes.fixed, w = V.volumes.warped, made = new Float32Array(f.values.length), windows = V.state.windows;
    for (let i = 0; i < made.length; i++) {
      made[i] = V.scene.shared ? w.values[i] - f.values[i] : scaled(windows.warped, w.values[i]) - scaled(windows.fixed, f.values[i]);
    }
    return Object.assign({}, f, { values: made });
  };
  V.differenceRange = () => V.scene.shared ? (V.state.windows.fixed[1] - V.state.windows.fixed[0]) / 2 : 0.5;
  V.checkerboard = function () { // fixed and warped in turn, 0 to 255
    const f = V.volumes.fixed, w = V.volumes.warped, [nx, ny, nz] = f.shape, made = new Uint8Array(f.values.length);
    const sizes = [0, 1, 2].map((c) => Math.hypot(f.affine[0][c], f.affine[1][c], f.affine[2][c]));
    const side = Math.max(nx * sizes[0], ny * sizes[1], nz * sizes[2]) / SQUARES;
    for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++) {
      const odd = (Math.floor(x * sizes[0] / side) + Math.floor(y * sizes[1] / side) + Math.floor(z * sizes[2] / side)) % 2;
      made[i] = 255 * (odd ? scaled(V.state.windows.warped, w.values[i]) : scaled(V.state.windows.fixed, f.values[i]));
    }
    return Object.assign({}, f, { values: made });
  };
})();
