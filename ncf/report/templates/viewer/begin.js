// The beginning: NiiVue is unpacked, the panels are made, and the first picture is shown. Without WebGL2 the page says so.
(function () {
  V.id = (id) => document.getElementById(id);
  V.say = function (text) { V.id("status").textContent = text; };
  V.failed = function (error) {
    console.error(error);
    V.say("The viewer stopped: " + error.message);
  };
  function still(text) { // the pictures beside the viewer take its place
    V.id("viewer").hidden = true;
    V.id("no-viewer").hidden = false;
    V.id("no-viewer").textContent = text;
    document.body.dataset.ready = "true";
  }
  function able() {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("webgl2");
    if (context) context.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context) && typeof DecompressionStream === "function";
  }
  async function begin() {
    if (!able()) {
      return still("This browser has no WebGL2 (or it is switched off), so the slices cannot be leafed through. The pictures below show the result.");
    }
    V.scene = JSON.parse(V.id("scene").textContent);
    const windows = V.scene.windows;
    V.state = {
      mm: V.scene.start_mm, picture: "warped", second: "before", motion: "none", blend: 0.5, swipe: 0.5, labels: false, margins: false, labelOpacity: 0.45,
      landmarks: V.scene.landmarks.length > 0, hidden: new Set(), ruler: false,
      windows: { fixed: windows.fixed.ranges[windows.fixed.start].slice(), warped: windows.warped.ranges[windows.warped.start].slice() },
    };
    const code = document.createElement("script");
    code.textContent = new TextDecoder().decode(await V.unpack(V.id("niivue").textContent.trim()));
    document.head.append(code);
    await V.loadAll();
    const fixed = V.volumes.fixed.affine;
    V.scene.step_mm = [0, 1, 2].map((a) => Math.max(...[0, 1, 2].map((c) => Math.abs(fixed[a][c]))));
    V.left = await V.panel("left", V.movedLeft);
    V.right = await V.panel("right", V.movedRight);
    V.listen();
    await V.redraw();
    V.say("");
    document.body.dataset.ready = "true";
  }
  begin().catch((error) => { V.failed(error); still("The viewer could not begin (" + error.message + "). The pictures below show the result."); });
})();
