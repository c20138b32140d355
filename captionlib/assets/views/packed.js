// Packed-sequence stepper. `data`: order (row numbers, longest first), sizes (captions still running
// at each step), names and says. Steps: the batch as it came, sorted, each step of the loop, the end.
startAll("packed", (root, data) => {
  const body = root.querySelector("tbody");
  const sorted = [...body.rows]; // on the page the longest caption comes first
  const came = sorted.map((_, place) => sorted[data.order.indexOf(place)]);
  const sizes = [...root.querySelectorAll("tfoot td")];
  const tokens = [...root.querySelectorAll(".clv-packed li")];
  const starts = data.sizes.map((_, t) => data.sizes.slice(0, t).reduce((sum, n) => sum + n, 0));

  const view = root.querySelector(".clv-scroll");

  function show(step) {
    const t = step - 2; // of the loop; below 0 it has not begun
    body.replaceChildren(...(step === 0 ? came : sorted));
    for (const row of sorted)
      [...row.querySelectorAll("td")].forEach((cell, column) => {
        cell.classList.toggle("now", column === t && cell.classList.contains("word"));
        cell.classList.toggle("later", t >= 0 && column > t);
      });
    sizes.forEach((cell, column) => (cell.textContent = column <= t ? data.sizes[column] : "·"));
    tokens.forEach((token, place) => {
      const column = starts.findLastIndex((start) => start <= place);
      token.classList.toggle("later", column > t);
      token.classList.toggle("now", column === t);
    });
    if (sizes[t]) view.scrollLeft = sizes[t].offsetLeft - view.clientWidth / 2;
  }

  stepper(root, data.names, show, (step) => data.says[step]);
});
