"use strict";
// The gallery of one page: layers, a picker of patches, and what is nearest to the picked one.
// Nothing is fetched: features lie in the page, a byte an axis, view by view.

(() => {
  const source = document.getElementById("gallery-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const [rows, columns] = data.grid;
  const patches = rows * columns;
  const NEAREST = 8;
  const VIRIDIS = [
    [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140],
    [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
  ];

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const priors = bytes(data.priors);
  const axes = data.step.length;
  // Of length 1, so that inner products are cosines.
  const features = Float32Array.from(
    bytes(data.features), (code, at) => data.low[at % axes] + code * data.step[at % axes]);
  for (let start = 0; start < features.length; start += axes) {
    const own = features.subarray(start, start + axes);
    const norm = Math.hypot(...own) || 1;
    own.forEach((value, k) => { own[k] = value / norm; });
  }
  const thumbs = [...document.querySelectorAll(".thumb")];
  const grid = document.getElementById("patch-grid");
  const stage = document.getElementById("stage-stack");
  const said = document.getElementById("patch-said");
  const list = document.getElementById("nearest");
  const state = { view: 0, patch: 0, layer: "plain" };

  // The cosine of every patch of the gallery to one of them.
  const cosines = (chosen) => {
    const left = features.subarray(chosen * axes, (chosen + 1) * axes);
    const found = new Float32Array(thumbs.length * patches);
    for (let p = 0; p < found.length; p += 1) {
      for (let k = 0; k < axes; k += 1) found[p] += left[k] * features[p * axes + k];
    }
    return found;
  };

  const colour = (part) => {
    const at = Math.min(0.9999, Math.max(0, part)) * (VIRIDIS.length - 1);
    const below = VIRIDIS[Math.floor(at)];
    const above = VIRIDIS[Math.floor(at) + 1];
    return below.map((value, k) => Math.round(value + (above[k] - value) * (at % 1)));
  };

  const paint = (canvas, values, low) => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    values.forEach((value, p) => {
      image.data.set([...colour((value - low) / (1 - low || 1)), 255], 4 * p);
    });
    context.putImageData(image, 0, 0);
  };

  const place = (patch) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
  const keyOf = (view) => thumbs[view].dataset.key;
  const layerOf = (view, name) => thumbs[view].querySelector(`img[data-layer="${name}"]`);

  // A square of the view around a patch, itself framed.
  const cutout = (view, patch) => {
    const box = document.createElement("span");
    box.className = "cutout";
    const picture = thumbs[view].querySelector("img");
    const across = 5;
    const left = Math.min(columns - across, Math.max(0, (patch % columns) - 2));
    const top = Math.min(rows - across, Math.max(0, Math.floor(patch / columns) - 2));
    const image = document.createElement("img");
    image.src = picture.src;
    image.alt = "";
    if (picture.dataset.layer) image.className = "pixelated";
    Object.assign(image.style, {
      width: `${(100 * columns) / across}%`,
      left: `${(-100 * left) / across}%`,
      top: `${(-100 * top) / across}%`,
    });
    const frame = document.createElement("span");
    frame.className = "frame";
    Object.assign(frame.style, {
      width: `${100 / across}%`,
      height: `${100 / across}%`,
      left: `${(100 * ((patch % columns) - left)) / across}%`,
      top: `${(100 * (Math.floor(patch / columns) - top)) / across}%`,
    });
    box.append(image, frame);
    return box;
  };

  const showNearest = (values) => {
    // One of each view, the best: eight views tell more than eight neighbours of one patch.
    const best = thumbs.map((_, view) => {
      const own = values.subarray(view * patches, (view + 1) * patches);
      let at = 0;
      own.forEach((value, p) => { if (value > own[at]) at = p; });
      return { view, patch: at, cosine: own[at] };
    });
    const shown = best.filter((one) => one.view !== state.view)
      .sort((a, b) => b.cosine - a.cosine).slice(0, NEAREST);
    list.replaceChildren(...shown.map((one) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "near";
      const words = document.createElement("span");
      words.className = "near-words";
      const number = document.createElement("b");
      number.textContent = one.cosine.toFixed(3);
      const key = document.createElement("span");
      key.className = "near-key tail";
      key.title = keyOf(one.view);
      const upright = document.createElement("bdi");
      upright.textContent = thumbs[one.view].dataset.short;
      key.append(upright);
      words.append(number, key);
      button.append(cutout(one.view, one.patch), words);
      button.setAttribute(
        "aria-label", `Cosine ${one.cosine.toFixed(3)}: ${keyOf(one.view)}, ${place(one.patch)}`);
      button.addEventListener("click", () => choose(one.view, one.patch, true));
      item.append(button);
      return item;
    }));
  };

  const showSimilar = (values) => {
    const sorted = Float32Array.from(values).sort();
    const low = sorted[Math.floor(0.02 * sorted.length)];
    thumbs.forEach((thumb, view) => {
      paint(thumb.querySelector("canvas"), values.subarray(view * patches, (view + 1) * patches), low);
    });
    const own = values.subarray(state.view * patches, (state.view + 1) * patches);
    paint(stage.querySelector("canvas"), own, low);
  };

  const showStage = () => {
    const picture = thumbs[state.view].querySelector("img");
    const shown = stage.querySelector("img");
    shown.src = picture.src;
    shown.alt = picture.alt;
    shown.classList.toggle("pixelated", Boolean(picture.dataset.layer));
    document.querySelectorAll("[data-from]").forEach((small) => {
      const [base, cover] = small.querySelectorAll("img");
      const layer = layerOf(state.view, small.dataset.from);
      base.src = small.dataset.over ? picture.src : layer.src;
      base.classList.toggle("pixelated", !small.dataset.over || Boolean(picture.dataset.layer));
      if (cover) cover.src = layer.src;
      base.alt = layer.alt;
    });
    document.querySelectorAll("[data-tells]").forEach((cell) => {
      cell.textContent = thumbs[state.view].dataset[cell.dataset.tells];
    });
    const overlay = stage.querySelector(".overlay");
    const layer = layerOf(state.view, state.layer);
    overlay.hidden = !layer;
    if (layer) overlay.src = layer.src;
    stage.dataset.layer = state.layer;
    stage.dataset.cover = state.layer.startsWith("mask") ? "full" : state.layer;
  };

  const label = (button, patch) => {
    const prior = priors[state.view * patches + patch] / data.priorSteps;
    button.setAttribute("aria-label", `Patch ${place(patch)}; prior ${prior.toFixed(1)} times uniform`);
  };

  function choose(view, patch, focus = false) {
    const before = state.patch;
    const other = view !== state.view || !grid.dataset.ready;
    Object.assign(state, { view, patch });
    grid.dataset.ready = "yes";
    thumbs.forEach((thumb, number) => {
      thumb.setAttribute("aria-pressed", String(number === view));
      thumb.querySelector(".dot").hidden = number !== view;
    });
    const dot = thumbs[view].querySelector(".dot");
    dot.style.left = `${(100 * (patch % columns)) / columns}%`;
    dot.style.top = `${(100 * Math.floor(patch / columns)) / rows}%`;
    const cells = grid.querySelectorAll("button");
    if (other) {
      showStage();
      cells.forEach(label);
    }
    cells[before].tabIndex = -1;
    cells[before].setAttribute("aria-pressed", "false");
    cells[patch].tabIndex = 0;
    cells[patch].setAttribute("aria-pressed", "true");
    if (focus) cells[patch].focus({ preventScroll: false });
    const values = cosines(view * patches + patch);
    showSimilar(values);
    showNearest(values);
    const prior = priors[view * patches + patch] / data.priorSteps;
    said.textContent = `${keyOf(view)}, patch in ${place(patch)}: prior ${prior.toFixed(1)} times uniform.`;
  }

  const moved = (key, patch) => {
    const column = patch % columns;
    switch (key) {
      case "ArrowLeft": return column > 0 ? patch - 1 : patch;
      case "ArrowRight": return column < columns - 1 ? patch + 1 : patch;
      case "ArrowUp": return patch >= columns ? patch - columns : patch;
      case "ArrowDown": return patch < patches - columns ? patch + columns : patch;
      case "Home": return patch - column;
      case "End": return patch - column + columns - 1;
      default: return null;
    }
  };

  const setLayer = (name) => {
    state.layer = name;
    document.querySelectorAll("[data-show]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.show === name));
    });
    document.getElementById("thumbs").dataset.layer = name;
    document.getElementById("scale").hidden = !(name === "prior" || name === "similar");
    thumbs.forEach((thumb) => {
      thumb.querySelectorAll("img[data-layer]").forEach((image) => {
        image.classList.toggle("on", image.dataset.layer === name);
      });
      thumb.querySelector("canvas").classList.toggle("on", name === "similar");
    });
    stage.querySelector("canvas").classList.toggle("on", name === "similar");
    showStage();
  };

  const patchAt = (event, element) => {
    const box = element.getBoundingClientRect();
    const within = (value, size, count) =>
      Math.min(count - 1, Math.max(0, Math.floor((value / size) * count)));
    return within(event.clientY - box.top, box.height, rows) * columns
      + within(event.clientX - box.left, box.width, columns);
  };

  for (let patch = 0; patch < patches; patch += 1) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(state.view, patch, true));
    grid.append(button);
  }
  grid.style.setProperty("--columns", columns);
  grid.addEventListener("keydown", (event) => {
    const next = event.ctrlKey || event.metaKey || event.altKey ? null : moved(event.key, state.patch);
    if (next === null) return;
    event.preventDefault();
    choose(state.view, next, true);
  });
  thumbs.forEach((thumb, view) => {
    thumb.addEventListener("click", (event) => {
      // A click of the keyboard has no place: it picks the patch that the prior likes best.
      const stack = thumb.querySelector(".stack");
      const patch = event.detail === 0 ? Number(thumb.dataset.best) : patchAt(event, stack);
      choose(view, patch);
    });
  });
  document.querySelectorAll("[data-show]").forEach((button) => {
    button.addEventListener("click", () => setLayer(button.dataset.show));
  });
  document.querySelectorAll(".needs-script").forEach((part) => { part.hidden = false; });
  choose(0, Number(thumbs[0].dataset.best));
  setLayer("plain");
})();
