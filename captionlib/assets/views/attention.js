// Attention explorer. `data`: words, peaks, grid [h, w], maps (hundredths of an even share, a row of
// h * w for each word), shape [height, width] of the photograph, says (a sentence for each word).

// (pixels x cells) shares, as captionlib.visualize._spread: rows add up to 1.
function spread(cells, pixels, smooth) {
  const rows = [];
  for (let y = 0; y < pixels; y++) {
    const place = ((y + 0.5) * cells) / pixels;
    let row = Array.from({ length: cells }, (_, cell) => Number(Math.floor(place) === cell));
    if (smooth) {
      const bell = row.map(() => 0);
      // The bell is sampled at every pixel, and each pixel belongs to the cell that it lies in.
      for (let x = 0; x < pixels; x++) {
        const from = ((x + 0.5) * cells) / pixels;
        const far = [place - from, place + from, place - 2 * cells + from];
        bell[Math.floor(from)] += far.reduce((sum, d) => sum + Math.exp(-2 * d * d), 0);
      }
      const total = bell.reduce((sum, share) => sum + share, 0);
      row = bell.map((share) => share / total);
    }
    rows.push(row);
  }
  return rows;
}

function upsample(map, [h, w], rows, columns) {
  const wide = rows.map((row) =>
    Array.from({ length: w }, (_, j) => row.reduce((sum, share, i) => sum + share * map[i * w + j], 0)));
  return wide.map((line) =>
    columns.map((column) => column.reduce((sum, share, j) => sum + share * line[j], 0)));
}

// Half the summed difference of two maps: 0 for equal ones, 1 if they share no cell.
function distance(first, second) {
  const total = (map) => map.reduce((sum, weight) => sum + weight, 0);
  const [a, b] = [total(first), total(second)];
  return first.reduce((sum, weight, i) => sum + Math.abs(weight / a - second[i] / b), 0) / 2;
}

startAll("attention", (root, data) => {
  const stage = root.querySelector(".clv-stage");
  const shots = [...stage.querySelectorAll("figure")];
  const sheet = root.querySelector(".clv-sheet");
  const smooth = root.querySelector("[name=smooth]");
  const other = root.querySelector("[name=compare]");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const tall = 72; // pixels of the drawn veil; the browser stretches them
  const wide = Math.round((tall * data.shape[1]) / data.shape[0]);
  let top, rows, columns, frame;
  let drawn = null; // the map on the stage now, on its way to the chosen word's

  function scale() {
    [rows, columns] = [[data.grid[0], tall], [data.grid[1], wide]]
      .map(([cells, pixels]) => spread(cells, pixels, smooth.checked));
    // Not Math.max(...all): a long caption has more pixels than a function takes arguments.
    const highest = (map) => Math.max(...upsample(map, data.grid, rows, columns).flat());
    top = Math.max(...data.maps.map(highest));
    sheet.classList.toggle("clv-smooth", smooth.checked);
  }

  function paint(shot, map) {
    const canvas = shot.querySelector("canvas");
    [canvas.width, canvas.height] = [wide, tall];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(wide, tall);
    upsample(map, data.grid, rows, columns).flat().forEach((weight, i) => {
      const light = Math.sqrt(Math.max(weight, 0) / top); // the scale of show_attention
      pixels.data.set([8, 8, 8, 208 * (1 - Math.min(light, 1))], 4 * i);
    });
    context.putImageData(pixels, 0, 0);
  }

  function caption(shot, word) {
    shot.querySelector("b").textContent = data.words[word];
    shot.querySelector(".clv-times").textContent = `×${data.peaks[word]}`;
    shot.querySelector(".clv-photo").setAttribute("aria-label", data.says[word]);
  }

  function glide(from, to, start) {
    const part = still.matches ? 1 : Math.min((performance.now() - start) / 350, 1);
    drawn = to.map((weight, i) => from[i] + part * (weight - from[i]));
    paint(shots[0], drawn);
    if (part < 1) frame = requestAnimationFrame(() => glide(from, to, start));
  }

  function show(word) {
    cancelAnimationFrame(frame);
    caption(shots[0], word);
    glide(drawn || data.maps[word], data.maps[word], performance.now());
    const second = other.value === "" ? null : Number(other.value);
    shots[1].hidden = second === null;
    if (second !== null) {
      caption(shots[1], second);
      paint(shots[1], data.maps[second]);
    }
    buttons.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === word));
      button.toggleAttribute("data-second", i === second);
    });
  }

  function says(word) {
    if (other.value === "") return data.says[word];
    const second = Number(other.value);
    const far = distance(data.maps[word], data.maps[second]).toFixed(2);
    return `${data.says[word]} ${data.says[second]} Their distance is ${far}: ` +
      "0 would be the same map, 1 no cell in common.";
  }

  const buttons = [...sheet.children].map((item, word) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...item.childNodes);
    item.append(button);
    button.addEventListener("click", () => steps.go(word));
    return button;
  });
  scale();
  stage.hidden = false;
  const names = data.words.map((word, i) => `word ${i + 1} of ${data.words.length}, ${word}`);
  const steps = stepper(root, names, show, says);
  smooth.addEventListener("change", () => { scale(); steps.go(steps.at()); });
  other.addEventListener("change", () => steps.go(steps.at()));
});
