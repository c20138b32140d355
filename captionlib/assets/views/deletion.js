// Deletion slider: cells of the grid are erased one after another. The curves are on the page already;
// this covers cells, moves the line, and marks the chosen curve. `data`: names, one for each number of
// cells; orders, each with cells (the order in which they go) and says; says, those of the first order.
startAll("deletion", (root, data) => {
  const cells = [...root.querySelectorAll(".clv-cells rect")];
  const curves = [...root.querySelectorAll("[data-order]")];
  const line = root.querySelector(".clv-now");
  const select = root.querySelector("select");

  function show(count) {
    const gone = new Set(data.orders[select.selectedIndex].cells.slice(0, count));
    cells.forEach((cell, i) => cell.classList.toggle("gone", gone.has(i)));
    curves.forEach((curve, i) => curve.classList.toggle("now", i === select.selectedIndex));
    line.setAttribute("transform", `translate(${(data.across * count) / cells.length} 0)`);
  }

  root.querySelector(".clv-stage").hidden = false;
  const steps = stepper(root, data.names, show,
    (count) => data.orders[select.selectedIndex].says[count], 250);
  select.addEventListener("change", () => steps.go(steps.at()));
});
