// Swipe: in each slice the fixed scan lies to the left of a divider, the warped one to the right. The divider is dragged.
// NiiVue has no such picture, so it draws twice: without what lies over the fixed scan, which is kept, and with it.
(function () {
  const NEAR = 10; // pixels of the page beside the divider that take hold of it
  let fixed = null, held = null;

  function overlays(nv, count) { // how many NiiVue's shader of slices draws; it tells it this only where volumes change
    const shader = nv.sliceMMShader;
    shader.use(nv.gl);
    nv.gl.uniform1f(shader.uniforms.overlays, count);
  }
  V.keepFixed = function (panel, draw) {
    if (panel.side !== "left" || V.state?.picture !== "swipe" || !panel.nv.overlays.length) return;
    overlays(panel.nv, 0);
    draw();
    overlays(panel.nv, panel.nv.overlays.length);
    if (!fixed) fixed = document.createElement("canvas");
    if (fixed.width !== panel.canvas.width) fixed.width = panel.canvas.width;
    if (fixed.height !== panel.canvas.height) fixed.height = panel.canvas.height;
    fixed.getContext("2d").drawImage(panel.canvas, 0, 0);
  };
  function part(context, box, draw) { // within a box
    context.save();
    context.beginPath();
    context.rect(...box);
    context.clip();
    draw();
    context.restore();
  }
  V.drawSwipe = function (panel, context, tile, to, plane) {
    if (V.state.picture !== "swipe" || !fixed) return;
    const [l, t, w, h] = tile.leftTopWidthHeight, x = Math.round(l + V.state.swipe * w);
    part(context, [l, t, x - l, h], function () {
      context.drawImage(fixed, 0, 0);
      if (V.state.labels && V.volumes.fixed_label) V.outlines(panel, context, tile, to, plane, "fixed_label", false);
    });
    if (V.state.labels && V.volumes.warped_label) {
      part(context, [x, t, l + w - x, h], () => V.outlines(panel, context, tile, to, plane, "warped_label", false));
    }
    context.fillStyle = "rgba(0,0,0,.6)";
    context.fillRect(x - 2, t, 4, h);
    context.fillStyle = "#fff";
    context.fillRect(x - 1, t, 2, h);
    context.fillRect(x - 4, t + h / 2 - 12, 8, 24); // to take hold of
    for (const [name, align, at] of [["fixed", "right", x - 8], ["warped", "start", x + 8]]) {
      context.textAlign = align;
      context.lineWidth = 3;
      context.strokeStyle = "rgba(0,0,0,.7)"; // a scan is white there as often as black
      context.strokeText(name, at, t + h - 28); // above the letter of the direction
      context.fillText(name, at, t + h - 28);
    }
    context.textAlign = "start";
    context.lineWidth = 1.2;
  };

  function tileAt(panel, event) { // whose divider is under the pointer
    if (V.state?.picture !== "swipe") return null;
    const dot = panel.canvas.width / panel.canvas.clientWidth, box = panel.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * dot, y = (event.clientY - box.top) * dot;
    return panel.nv.screenSlices.find(function (tile) {
      const [l, t, w, h] = tile.leftTopWidthHeight;
      return tile.axCorSag < 3 && y >= t && y < t + h && Math.abs(x - l - V.state.swipe * w) <= NEAR * dot;
    });
  }
  V.dragSwipe = function (panel) {
    const place = panel.canvas.parentElement;
    const stop = (event) => { if (held) event.stopPropagation(); };
    place.addEventListener("pointerdown", function (event) {
      held = tileAt(panel, event) || null;
      if (held) { place.setPointerCapture(event.pointerId); event.stopPropagation(); }
    }, true);
    for (const name of ["mousedown", "mousemove", "touchstart", "touchmove"]) place.addEventListener(name, stop, true); // NiiVue's
    place.addEventListener("pointermove", function (event) {
      place.style.cursor = held || tileAt(panel, event) ? "ew-resize" : "";
      if (!held) return;
      const dot = panel.canvas.width / panel.canvas.clientWidth, [l, , w] = held.leftTopWidthHeight;
      V.slide(((event.clientX - panel.canvas.getBoundingClientRect().left) * dot - l) / w);
    }, true);
    for (const name of ["pointerup", "pointercancel"]) place.addEventListener(name, () => { held = null; }, true);
  };
})();
