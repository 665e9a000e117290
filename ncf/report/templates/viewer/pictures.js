// Which volumes the panels show: the chosen picture on the left, the moving scan or the warped one on the right.
(function () {
  const kept = {}; // images made once: by panel and name, because a texture belongs to one panel

  async function scan(side, name, key, affine) {
    const at = side + name, window = V.state.windows[key];
    if (!kept[at]) kept[at] = await V.image(V.volumes[name], name, { low: window[0], high: window[1], affine: affine });
    kept[at].cal_min = window[0];
    kept[at].cal_max = window[1];
    kept[at].opacity = 1;
    return kept[at];
  }
  async function other(at, make) {
    if (!kept[at]) kept[at] = await make();
    return kept[at];
  }
  async function labels(side, name) {
    if (!V.state.labels || !V.volumes[name]) return [];
    const image = await other(side + name, () => V.image(V.volumes[name], name, { low: 0, high: 255, label: true }));
    image.setColormapLabel(V.labelTable());
    image.opacity = V.state.labelOpacity;
    return [image];
  }
  async function empty(side, name) {
    return V.volumes[name] ? [await other(side + name, () => V.noData(name))] : [];
  }
  const made = {
    fixed: async () => [],
    warped: async () => [await scan("left", "warped", "warped"), ...await empty("left", "nothing_after")],
    before: async () => [await scan("left", "moving", "warped", V.scene.before_affine), ...await empty("left", "nothing_before")],
    blend: async function () {
      const image = await scan("left", "warped", "warped");
      image.opacity = V.state.blend;
      return [image];
    },
    swipe: async () => [await scan("left", "warped", "warped"), ...await empty("left", "nothing_after")],
    difference: async function () {
      const range = V.differenceRange();
      if (!V.scene.shared) delete kept.difference;
      const image = await other("difference", () => V.image(V.difference(), "difference", { low: -range, high: range, colormap: "difference" }));
      image.cal_min = -range;
      image.cal_max = range;
      return [image, ...await empty("left", "nothing_after")];
    },
    checkerboard: async () => [await V.image(V.checkerboard(), "checkerboard", { low: 0, high: 255 })],
    volume: async function () {
      const image = await other("volume", () => V.image(V.volumes.det, "volume", { low: 0, high: 2, colormap: "volume" }));
      image.opacity = 0.75;
      return [image];
    },
    trust: async function () {
      const range = { low: 0.01, high: V.scene.bounds.top_mm, colormap: "trust" }; // 0: nothing is known, no colour
      const image = await other("trust", () => V.image(V.volumes.trust, "trust", range));
      image.opacity = 0.7;
      return [image];
    },
  };

  let last = Promise.resolve();
  V.redraw = function () { // one after the other: a picture takes a moment to make
    last = last.then(draw).catch((error) => V.failed(error));
    return last;
  };
  async function draw() {
    const picture = V.state.picture;
    const left = [await scan("left", "fixed", "fixed"), ...await made[picture]()];
    const ours = picture === "warped" ? "warped_label" : "fixed_label";
    V.show(V.left, picture === "swipe" ? left : [...left, ...await labels("left", ours)]); // swipe.js draws outlines
    const before = V.state.second === "before", name = before ? "moving" : "warped";
    const right = [await scan("right", name, "warped"), ...(before ? [] : await empty("right", "nothing_after"))];
    V.show(V.right, [...right, ...await labels("right", name + "_label")]);
    V.go(V.state.mm);
    V.legend();
    document.body.dataset.picture = picture + " " + V.state.second;
  }
  V.windowed = function () { // nothing but the window is another
    const volumes = V.state.picture === "checkerboard" || V.state.picture === "difference" ? null : [V.left, V.right];
    if (!volumes) return V.redraw();
    for (const at of Object.keys(kept)) {
      const name = at.replace(/^(left|right)/, "");
      const window = name === "fixed" ? V.state.windows.fixed : ["warped", "moving"].includes(name) ? V.state.windows.warped : null;
      if (window) { kept[at].cal_min = window[0]; kept[at].cal_max = window[1]; }
    }
    volumes.forEach((panel) => panel.nv.updateGLVolume());
    return V.legend();
  };
})();
