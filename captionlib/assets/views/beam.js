// Beam search stepper. The tree and a list for every step are on the page already; this shows and
// hides them. `data`: names and says, one each a step.
startAll("beam", (root, data) => {
  const nodes = [...root.querySelectorAll("[data-step]")];
  const lists = [...root.querySelectorAll(".clv-beams > div")];
  const view = root.querySelector(".clv-scroll");

  let shown = data.names.length - 1; // the page comes with the last step

  function show(step) {
    let edge = 0;
    for (const node of nodes) {
      const born = Number(node.dataset.step);
      node.style.visibility = born > step ? "hidden" : "visible";
      // A beginning is dead once none of what continues it is live or finished.
      node.classList.toggle("dead", born <= step && step > Number(node.dataset.until));
      node.classList.toggle("won", "won" in node.dataset && step === data.names.length - 1);
      if (born === step) edge = Number(node.dataset.edge);
    }
    if (step !== shown) view.scrollLeft = edge - view.clientWidth + 12; // the step's column, at the right
    shown = step;
    lists.forEach((list, i) => (list.hidden = i !== step));
  }

  root.querySelector(".clv-beams").hidden = false;
  // The still picture is the finished tree; who steps through it starts at the first word.
  stepper(root, data.names, show, (step) => data.says[step]).go(0);
});
