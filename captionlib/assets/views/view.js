// What the views share: the row of buttons and the slider that walk through steps.
// `names` has a few words for each step; `show(step)` draws one; `says(step)` tells it in words.
function stepper(root, names, show, says, pace = 1100) {
  const bar = root.querySelector(".clv-controls");
  const slider = bar.querySelector("input[type=range]");
  const button = Object.fromEntries(
    [...bar.querySelectorAll("[data-go]")].map((each) => [each.dataset.go, each]));
  const status = root.querySelector(".clv-status");
  const last = names.length - 1;
  let step = Number(slider.value);
  let timer = null;

  function go(to) {
    step = Math.min(Math.max(to, 0), last);
    slider.value = step;
    slider.setAttribute("aria-valuetext", names[step]);
    for (const [name, end] of [["first", 0], ["back", 0], ["next", last], ["last", last]])
      button[name].setAttribute("aria-disabled", String(step === end));
    show(step);
    tell();
  }

  function tell() {
    const text = says(step);
    if (status.textContent !== text) status.textContent = text;
  }

  function play(on) {
    clearInterval(timer);
    timer = null;
    status.setAttribute("aria-live", on ? "off" : "polite"); // no chatter while it runs
    button.play.textContent = on ? "Pause" : "Play";
    if (!on) return;
    if (step === last) go(0);
    timer = setInterval(() => (root.isConnected && step < last ? go(step + 1) : play(false)), pace);
  }

  const walk = { first: () => 0, back: () => step - 1, next: () => step + 1, last: () => last };
  for (const [name, where] of Object.entries(walk))
    button[name].addEventListener("click", () => { play(false); go(where()); });
  button.play.addEventListener("click", () => play(timer === null));
  slider.addEventListener("input", () => { play(false); go(Number(slider.value)); });
  bar.hidden = false;
  go(step); // where the slider stands: what the page shows without a script
  return { go: (to) => { play(false); go(to); }, at: () => step };
}

// Every view of a kind that no script has started yet. An output can be shown twice: each counts.
function startAll(kind, start) {
  for (const root of document.querySelectorAll(`.clv[data-kind="${kind}"]:not([data-ready])`)) {
    root.dataset.ready = "";
    root.addEventListener("keydown", (event) => { // JupyterLab would move through its cells
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
    start(root, JSON.parse(root.querySelector("script[type='application/json']").textContent));
  }
}
