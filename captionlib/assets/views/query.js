// The bench: a query among cells. Scores are dot products, the context is the weighted mean, and a
// step moves the query down the gradient of -log of the first feature's softmax.
function attend(grid, query) {
  const scores = grid.map((cell) => cell[0] * query[0] + cell[1] * query[1]);
  const top = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - top));
  const total = powers.reduce((a, b) => a + b);
  const alpha = powers.map((power) => power / total);
  const context = [0, 1].map((k) => grid.reduce((sum, cell, p) => sum + alpha[p] * cell[k], 0));
  const sure = 1 / (1 + Math.exp(context[1] - context[0]));
  return { scores, alpha, context, sure };
}

function gradient(grid, query) {
  const { alpha, context, sure } = attend(grid, query);
  const g = [sure - 1, 1 - sure]; // of the loss, by the context
  const slope = [0, 0];
  grid.forEach((cell, p) => {
    const along = g[0] * (cell[0] - context[0]) + g[1] * (cell[1] - context[1]);
    for (const k of [0, 1]) slope[k] += alpha[p] * along * cell[k];
  });
  return slope;
}

startAll("query", (root, data) => {
  const { grid, names, size, reach } = data;
  const plane = root.querySelector(".clv-plane");
  const sliders = [...root.querySelectorAll("input")];
  const rows = [...root.querySelectorAll("tbody tr")];
  const cells = [...plane.querySelectorAll("[data-cell]")];
  const status = root.querySelector(".clv-status");
  const at = (value) => (size / 2) * (1 + value / reach);
  const show = (value) => value.toFixed(2).replace("-", "−");
  const pair = (values) => `(${values.map(show).join(", ")})`;
  const keep = (value) => Math.min(reach, Math.max(-reach, value));
  let query = [...data.query];

  function draw() {
    const { scores, alpha, context, sure } = attend(grid, query);
    cells.forEach((cell, p) => cell.setAttribute("r", 4 + 14 * Math.sqrt(alpha[p])));
    rows.forEach((row, p) => {
      row.children[2].textContent = show(scores[p]);
      row.children[3].textContent = show(alpha[p]);
    });
    const [x, y] = [at(query[0]), at(-query[1])];
    plane.querySelector(".clv-query").setAttribute("d", `M${size / 2} ${size / 2}L${x} ${y}`);
    const tip = plane.querySelector(".clv-tip");
    tip.setAttribute("cx", x);
    tip.setAttribute("cy", y);
    plane.querySelector(".clv-context")
      .setAttribute("transform", `translate(${at(context[0])} ${at(-context[1])})`);
    sliders.forEach((slider, k) => { slider.value = query[k]; });
    const most = alpha.indexOf(Math.max(...alpha));
    status.textContent = `Query ${pair(query)}: ${names[most]} has ${Math.round(100 * alpha[most])}% of the weight. `
      + `The context is ${pair(context)}, which says ${data.features[0]} with a probability of ${sure.toFixed(2)}.`;
  }

  function drag(event) {
    const box = plane.getBoundingClientRect();
    const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    query = [keep(reach * (2 * part[0] - 1)), keep(reach * (1 - 2 * part[1]))];
    draw();
  }

  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    drag(event);
  });
  plane.addEventListener("pointermove", (event) => {
    if (plane.hasPointerCapture(event.pointerId)) drag(event);
  });
  sliders.forEach((slider, k) => slider.addEventListener("input", () => {
    query[k] = Number(slider.value);
    draw();
  }));
  root.querySelector('[data-do="step"]').addEventListener("click", () => {
    const slope = gradient(grid, query);
    query = query.map((value, k) => keep(value - slope[k]));
    draw();
  });
  root.querySelector('[data-do="back"]').addEventListener("click", () => {
    query = [...data.query];
    draw();
  });
  root.querySelector(".clv-controls").hidden = false;
  draw();
});
