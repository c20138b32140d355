// Questions: what was chosen is answered at once, and remembered by this browser.
const KEPT = "captionlib question ";

function recall(name) {
  try { return localStorage.getItem(KEPT + name); } catch { return null; } // a page from disk, or private
}

function remember(name, value) {
  try { localStorage.setItem(KEPT + name, value); } catch { /* asked anew next time */ }
}

function say(root, right, text) {
  const says = root.querySelector(".clq-says");
  says.dataset.right = String(right);
  says.textContent = (right ? "Right. " : "Not quite. ") + text.replace(/[`*]/g, "");
}

function startChoice(root, data) {
  const inputs = [...root.querySelectorAll("input")];
  const answer = (at) => say(root, data.choices[at].right, data.choices[at].says);
  root.querySelector("details").hidden = true;
  root.addEventListener("change", (event) => {
    const at = inputs.indexOf(event.target);
    if (at < 0) return;
    answer(at);
    remember(data.name, String(at));
  });
  const kept = Number(recall(data.name) ?? -1);
  if (inputs[kept]) {
    inputs[kept].checked = true;
    answer(kept);
  }
}

function startOrder(root, data) {
  const list = root.querySelector("ol");
  const lines = () => [...list.children].map((item) => item.querySelector("code").textContent);

  function show() {
    [...list.children].forEach((item, at) => {
      const [up, down] = item.querySelectorAll("button");
      const line = item.querySelector("code").textContent.trim();
      up.setAttribute("aria-label", `Up, from place ${at + 1}: ${line}`);
      down.setAttribute("aria-label", `Down, from place ${at + 1}: ${line}`);
    });
  }

  function check() {
    const wrong = lines().findIndex((line, at) => line !== data.lines[at]);
    if (wrong < 0) say(root, true, data.says);
    else if (wrong === 0) say(root, false, "Another line comes first.");
    else say(root, false, `The first ${wrong === 1 ? "line is" : `${wrong} lines are`} in place; another one comes next.`);
    return wrong < 0;
  }

  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const item = button.closest("li");
    const other = button.dataset.by === "1" ? item.nextElementSibling : item.previousElementSibling;
    if (!other) return;
    if (button.dataset.by === "1") other.after(item);
    else other.before(item);
    button.focus();
    show();
  });
  root.querySelector(".clq-check").addEventListener("click", () => {
    if (check()) remember(data.name, "right");
  });
  for (const hidden of root.querySelectorAll(".clq-move, .clq-check")) hidden.hidden = false;
  if (recall(data.name) === "right") {
    for (const line of data.lines)
      list.append([...list.children].find((item) => item.querySelector("code").textContent === line));
    check();
  }
  show();
}

for (const root of document.querySelectorAll(".clq:not([data-ready])")) {
  root.dataset.ready = "";
  root.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("keydown", (event) => { // JupyterLab would move through its cells
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  (root.dataset.kind === "order" ? startOrder : startChoice)(root, data);
}
