// Every control, by pointer and by key.
(function () {
  function choose(name, value) {
    const input = document.querySelector('[name="' + name + '"][value="' + value + '"]');
    if (!input) return;
    input.checked = true;
    V.state[name] = value;
    if (name === "picture") slide();
    if (name === "motion") { V.go(V.state.mm); return; }
    V.redraw();
  }
  V.choose = choose;
  function slide() { // the slider of the blend is that of the swipe too
    const swipe = V.state.picture === "swipe";
    V.id("blend-told").textContent = swipe ? "Swipe" : "Blend";
    V.id("blend").value = Math.round(100 * (swipe ? V.state.swipe : V.state.blend));
  }
  V.slide = function (share) { // 0 to 1
    const held = Math.max(0, Math.min(1, share)), swipe = V.state.picture === "swipe";
    V.state[swipe ? "swipe" : "blend"] = held;
    if (!swipe) return choose("picture", "blend");
    slide();
    V.left.nv.drawScene();
  };
  function nudge(by) { V.slide(V.state[V.state.picture === "swipe" ? "swipe" : "blend"] + by); }
  function driven() { return V.scene.shared ? ["fixed", "warped"] : [V.id("of").value]; }
  function sliders() { // show the window of the scan that they drive
    const [low, high] = V.state.windows[driven()[0]];
    V.id("width").value = (high - low).toPrecision(6);
    V.id("level").value = ((high + low) / 2).toPrecision(6);
    V.id("window-told").textContent = "W " + Math.round((high - low) * 100) / 100 + ", L " + Math.round((high + low) * 50) / 100;
  }
  function ranges() { // of the sliders
    const [low, high] = V.scene.windows[driven()[0]].ranges["whole range"], step = Math.max((high - low) / 2000, 1e-6);
    Object.assign(V.id("width"), { min: step, max: high - low, step: step });
    Object.assign(V.id("level"), { min: low, max: high, step: step });
    V.id("preset").replaceChildren(...Object.keys(V.scene.windows[driven()[0]].ranges).map((name) => new Option(name, name)));
  }
  V.preset = function (name) {
    for (const key of driven()) {
      const range = V.scene.windows[key].ranges[name];
      if (range) V.state.windows[key] = range.slice();
    }
    V.id("preset").value = name;
    sliders();
    V.windowed();
  };
  function levels() {
    const width = Number(V.id("width").value), level = Number(V.id("level").value);
    for (const key of driven()) V.state.windows[key] = [level - width / 2, level + width / 2];
    sliders();
    V.windowed();
  }
  function labels() {
    const list = V.id("labels");
    if (!list) return;
    for (const label of V.scene.labels) {
      const row = list.insertRow(), box = document.createElement("input"), jump = document.createElement("button"), dot = document.createElement("span");
      box.type = "checkbox";
      box.checked = true;
      box.dataset.value = label.value;
      box.setAttribute("aria-label", "show " + label.name);
      box.addEventListener("change", function () {
        if (box.checked) V.state.hidden.delete(label.value); else V.state.hidden.add(label.value);
        V.redraw();
      });
      dot.className = "dot";
      dot.style.background = "rgb(" + V.labelColour(label).join(",") + ")";
      jump.type = "button";
      jump.textContent = label.name;
      jump.addEventListener("click", () => V.go(label.at_mm));
      row.insertCell().append(box, dot, jump);
      row.insertCell().textContent = label.dice === null ? "" : label.dice.toFixed(2);
    }
    V.id("labels-all").addEventListener("click", () => every(list, true));
    V.id("labels-none").addEventListener("click", () => every(list, false));
  }
  function every(list, on) {
    list.querySelectorAll("input").forEach((box) => { box.checked = on; });
    V.state.hidden = new Set(on ? [] : V.scene.labels.map((label) => label.value));
    V.redraw();
  }
  function landmarks() {
    document.querySelectorAll("[data-landmark]").forEach((button) => button.addEventListener("click", function () {
      V.go(V.scene.landmarks[Number(button.dataset.landmark)].fixed_mm);
      V.id("viewer").scrollIntoView({ block: "nearest" });
    }));
  }
  V.ruler = function (on) { // drag with the left button to measure
    V.state.ruler = on;
    V.id("ruler").setAttribute("aria-pressed", String(on));
    for (const panel of [V.left, V.right]) panel.nv.opts.dragModePrimary = on ? 2 : 8;
    if (!on) for (const panel of [V.left, V.right]) {
      panel.nv.document.completedMeasurements = [];
      panel.nv.drawScene();
    }
  };
  function check(id, key, redraw) {
    const box = V.id(id);
    if (!box) return;
    box.addEventListener("change", function () { V.state[key] = box.checked; redraw(); });
  }
  function flip(id) { if (V.id(id)) V.id(id).click(); }
  const keys = {
    b: () => choose("second", V.state.second === "before" ? "warped" : "before"),
    f: () => choose("picture", V.state.picture === "fixed" ? "warped" : "fixed"),
    l: () => flip("show-labels"), i: () => flip("show-margins"), ",": () => nudge(-0.05), ".": () => nudge(0.05), m: () => flip("show-landmarks"), c: () => flip("cross"), r: () => V.ruler(!V.state.ruler),
    g: () => choose("motion", { none: "grid", grid: "arrows", arrows: "none" }[V.state.motion]),
    w: function () {
      const all = Array.from(V.id("preset").options, (o) => o.value);
      V.preset(all[(all.indexOf(V.id("preset").value) + 1) % all.length]);
    },
    "+": () => V.zoom(1.3), "-": () => V.zoom(1 / 1.3), "0": () => V.zoom(0),
    ArrowLeft: () => V.step(0, 1), ArrowRight: () => V.step(0, -1), ArrowUp: () => V.step(1, 1), ArrowDown: () => V.step(1, -1),
    PageUp: () => V.step(2, 1), PageDown: () => V.step(2, -1),
  };
  function pressed(event) {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.key.length > 1;
    if (event.ctrlKey || event.metaKey || event.altKey || typing || event.target.tagName === "SELECT") return;
    if (event.target.type === "range" && event.key.length > 1) return;
    const pictures = Array.from(document.querySelectorAll("[name=picture]"), (input) => input.value);
    const picture = event.key !== "0" && pictures[Number(event.key) - 1];
    if (picture) choose("picture", picture); else if (keys[event.key]) keys[event.key](); else return;
    event.preventDefault();
  }

  V.listen = function () {
    for (const name of ["picture", "second", "motion"]) {
      document.querySelectorAll('[name="' + name + '"]').forEach((input) => input.addEventListener("change", () => choose(name, input.value)));
    }
    V.id("blend").addEventListener("input", () => V.slide(Number(V.id("blend").value) / 100));
    for (const id of ["width", "level"]) V.id(id).addEventListener("input", levels);
    V.id("preset").addEventListener("change", () => V.preset(V.id("preset").value));
    V.id("of").addEventListener("change", function () { ranges(); sliders(); });
    V.id("of").parentElement.hidden = V.scene.shared;
    check("show-labels", "labels", V.redraw);
    check("show-landmarks", "landmarks", () => V.go(V.state.mm));
    check("show-margins", "margins", () => V.go(V.state.mm));
    V.id("cross").addEventListener("change", function () {
      for (const panel of [V.left, V.right]) panel.nv.setCrosshairWidth(V.id("cross").checked ? 1 : 0);
    });
    V.id("ruler").addEventListener("click", () => V.ruler(!V.state.ruler));
    V.id("fold")?.addEventListener("click", function () { V.state.mm = V.scene.fold_mm; choose("picture", "volume"); });
    V.id("doubt")?.addEventListener("click", function () { V.state.mm = V.scene.doubt_mm; choose("picture", "trust"); });
    V.id("zoom-in").addEventListener("click", () => V.zoom(1.3));
    V.id("zoom-out").addEventListener("click", () => V.zoom(1 / 1.3));
    ranges();
    V.id("preset").value = V.scene.windows.fixed.start;
    sliders();
    labels();
    landmarks();
    document.addEventListener("keydown", pressed);
  };
})();
