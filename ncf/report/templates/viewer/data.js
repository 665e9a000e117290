// The volumes of the scene, unpacked or fetched, and the map between the two scans. Positions are RAS mm.
(function () {
  const TYPES = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, float32: Float32Array };

  V.unpack = async function (base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  function whole(bytes, Type) { // low bytes first, then the high ones
    if (Type === Uint8Array) return bytes;
    const size = bytes.length / 2, low = new Uint16Array(size);
    for (let i = 0; i < size; i++) low[i] = bytes[i] | bytes[size + i] << 8;
    return new Type(low.buffer);
  }
  async function stored(told) {
    const Type = TYPES[told.type];
    if (told.packed !== undefined) return whole(await V.unpack(told.packed), Type);
    const answer = await fetch(told.url);
    if (!answer.ok) throw new Error("the server has no " + told.url);
    return new Type(await answer.arrayBuffer());
  }
  async function load(name) {
    const told = V.scene.volumes[name];
    let values = await stored(told);
    if (told.step !== 1 || told.shift !== 0) {
      const real = new Float32Array(values.length);
      for (let i = 0; i < real.length; i++) real[i] = values[i] * told.step + told.shift;
      values = real;
    }
    told.packed = null;
    return { name: name, shape: told.shape, affine: told.affine, back: inverse(told.affine), values: values };
  }

  function inverse(m) { // of an affine (4, 4)
    const [a, b, c] = m;
    const x = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
    const det = a[0] * x[0] + a[1] * x[1] + a[2] * x[2];
    const rows = [
      [x[0], a[2] * c[1] - a[1] * c[2], a[1] * b[2] - a[2] * b[1]],
      [x[1], a[0] * c[2] - a[2] * c[0], a[2] * b[0] - a[0] * b[2]],
      [x[2], a[1] * c[0] - a[0] * c[1], a[0] * b[1] - a[1] * b[0]],
    ].map((row) => row.map((v) => v / det));
    return rows.map((r) => [...r, -(r[0] * a[3] + r[1] * b[3] + r[2] * c[3])]);
  }
  V.inverse = inverse;
  V.times = (m, p) => [0, 1, 2].map((r) => m[r][0] * p[0] + m[r][1] * p[1] + m[r][2] * p[2] + m[r][3]);

  V.valueAt = function (volume, mm) { // of the nearest voxel; null outside
    const at = V.times(volume.back, mm).map(Math.round), [w, h, d] = volume.shape;
    if (at[0] < 0 || at[1] < 0 || at[2] < 0 || at[0] >= w || at[1] >= h || at[2] >= d) return null;
    return volume.values[at[0] + w * (at[1] + h * at[2])];
  };
  function linear(volume, at) { // between voxels; at the border as at the nearest voxel
    const [w, h, d] = volume.shape, last = [w - 1, h - 1, d - 1], lines = [1, w, w * h];
    let offset = 0;
    const share = at.map(function (v, a) {
      const held = Math.max(0, Math.min(last[a], v)), low = Math.min(Math.floor(held), Math.max(0, last[a] - 1));
      offset += low * lines[a];
      return held - low;
    });
    let sum = 0;
    for (let corner = 0; corner < 8; corner++) {
      let weight = 1, place = offset;
      for (let a = 0; a < 3; a++) {
        const up = corner >> a & 1;
        weight *= up ? share[a] : 1 - share[a];
        place += up * lines[a];
      }
      if (weight) sum += weight * volume.values[place];
    }
    return sum;
  }
  V.displacement = function (mm) { // from a fixed point to its moving point
    const fields = ["field_x", "field_y", "field_z"].map((name) => V.volumes[name]), at = V.times(fields[0].back, mm);
    return fields.map((field) => linear(field, at));
  };
  V.toMoving = (mm) => V.displacement(mm).map((u, a) => mm[a] + u);
  V.toFixed = function (mm) { // the fixed point that the map brings here, or null where none is found
    let best = null;
    const offsets = [-1, 0, 1].map((s) => s * 30);
    const from = V.displacement(mm).map((u, a) => mm[a] - u);
    const starts = [from, mm];
    offsets.forEach((x) => offsets.forEach((y) => offsets.forEach((z) => starts.push([from[0] + x, from[1] + y, from[2] + z]))));
    for (const start of starts) {
      let at = start, miss = Infinity;
      for (let step = 0; step < 40 && miss > 0.01; step++) {
        const there = V.toMoving(at), off = there.map((v, a) => mm[a] - v);
        miss = Math.hypot(...off);
        if (miss > 0.01) at = at.map((v, a) => v + 0.8 * off[a]);
      }
      if (!best || miss < best.miss) best = { at: at, miss: miss };
      if (best.miss <= 0.1) return best.at;
    }
    return null;
  };
  V.spoken = function (mm) { // with the patient's own directions, as radiology writes them
    const letters = [["L", "R"], ["P", "A"], ["I", "S"]];
    return mm.map((v, a) => letters[a][v < 0 ? 0 : 1] + " " + Math.abs(v).toFixed(1)).join(", ") + " mm";
  };

  V.loadAll = async function () {
    V.volumes = {};
    for (const name of Object.keys(V.scene.volumes)) {
      V.say("Reading " + name.replace("_", " ") + " …");
      V.volumes[name] = await load(name);
    }
  };
})();
