// Two panels of three slices each: the fixed scan's space, and the moving scan's. NiiVue draws them.
(function () {
  const LOOK = {
    isRadiologicalConvention: true, isSliceMM: true, sagittalNoseLeft: true, show3Dcrosshair: false, isColorbar: false,
    multiplanarShowRender: 0, backColor: [0, 0, 0, 1], crosshairColor: [0.49, 0.75, 1, 0.75], crosshairWidth: 1,
    crosshairWidthUnit: "mm", dragAndDropEnabled: false, logLevel: "error", loadingText: "", viewModeHotKey: "",
    clipPlaneHotKey: "", cycleClipPlaneHotKey: "", fontMinPx: 14, isOrientationTextVisible: false, dragMode: 0, rulerWidth: 2,
    measureLineColor: [1, 0.84, 0, 1], measureTextColor: [1, 0.84, 0, 1], multiplanarPadPixels: 4,
  };

  V.panel = async function (side, moved) {
    const canvas = V.id("canvas-" + side), nv = new niivue.Niivue(LOOK);
    await nv.attachToCanvas(canvas, false);
    canvas.tabIndex = -1; // keys belong to the page
    V.addColours(nv);
    nv.setSliceType(3);
    nv.setInterpolation(false);
    const panel = { side: side, nv: nv, canvas: canvas, drawn: V.id("drawn-" + side), mm: null };
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = function () {
      V.keepFixed(panel, draw);
      const told = draw();
      V.drawOver(panel);
      return told;
    };
    if (side === "left") V.dragSwipe(panel);
    nv.onLocationChange = function (told) {
      panel.mm = Array.from(told.mm).slice(0, 3);
      moved(panel.mm);
    };
    canvas.addEventListener("pointermove", (event) => V.hover(panel, event));
    canvas.addEventListener("pointerleave", () => V.hover(null));
    return panel;
  };
  V.place = function (panel, mm) {
    const zoom = panel.nv.scene.pan2Dxyzmm[3]; // the crosshair stays where it would be without zoom, so in sight
    panel.mm = mm;
    panel.nv.scene.pan2Dxyzmm = [...mm.map((v) => v * (1 - zoom)), zoom];
    panel.nv.scene.crosshairPos = panel.nv.mm2frac(mm);
    panel.nv.drawScene();
  };
  V.show = function (panel, images) { // the first one is the ground, the others lie over it
    const nv = panel.nv;
    nv.volumes = images;
    nv.back = images[0];
    nv.overlays = images.slice(1);
    nv.updateGLVolume();
  };

  V.go = function (mm) { // both crosshairs: to a fixed point and to its moving point
    V.state.mm = mm;
    V.place(V.left, mm);
    V.place(V.right, V.state.second === "before" ? V.toMoving(mm) : mm);
    V.readout();
  };
  V.movedLeft = function (mm) { V.state.mm = mm; V.place(V.right, V.state.second === "before" ? V.toMoving(mm) : mm); V.readout(); };
  V.movedRight = function (mm) {
    const fixed = V.state.second === "before" ? V.toFixed(mm) : mm;
    if (!fixed) return V.say("No point of the fixed scan comes here.");
    V.state.mm = fixed;
    V.place(V.left, fixed);
    V.readout();
  };
  V.step = function (axis, count) { // voxels of the fixed scan along x, y or z
    const mm = V.state.mm.slice();
    mm[axis] += count * V.scene.step_mm[axis];
    V.go(mm);
  };
  V.zoom = function (factor) { // about the crosshair; 0 shows all again
    for (const panel of [V.left, V.right]) {
      panel.nv.scene.pan2Dxyzmm[3] = Math.max(1, Math.min(20, panel.nv.scene.pan2Dxyzmm[3] * factor));
      V.place(panel, panel.mm);
    }
  };
})();
