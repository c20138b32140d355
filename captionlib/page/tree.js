// The tree of a beam search, as captionlib.book.beam_trace draws it: a column for
// each step, a box for each candidate.

const FATES = {
  kept: "kept",
  finished: "finished, put aside",
  dropped: "dropped, not among the best",
  beaten: "given up, it can’t overtake the best finished one",
  cut: "given up, it is longer than a caption may be",
};

// The last step at which each candidate or a continuation of it is live. Finished
// captions last to the end, and so does what led to them.
function lastSteps(steps) {
  const end = steps.length - 1;
  const last = steps.map((step, t) => step.map(({ fate }) => (fate === "finished" ? end : t)));
  for (let t = end; t > 0; t--)
    steps[t].forEach(({ fate, parent }, i) => {
      if (fate === "kept" || fate === "finished")
        last[t - 1][parent] = Math.max(last[t - 1][parent], last[t][i]);
    });
  return last;
}

// The candidates that led to `ids`, one a step: sets of places "step,index".
function pathTo(steps, ids) {
  const same = (each) => each.ids.length === ids.length && each.ids.every((id, i) => id === ids[i]);
  let t = ids.length - 2;
  let i = steps[t]?.findIndex(same) ?? -1;
  const path = new Set();
  for (; t >= 0 && i >= 0; t--) {
    path.add(`${t},${i}`);
    i = steps[t][i].parent;
  }
  return path;
}

// `word` spells an id; `best` are the ids of the caption, <start> and <end> included.
function drawTree(steps, best, word) {
  const until = lastSteps(steps);
  const won = pathTo(steps, best);
  const boxes = [];
  let [x, right, before] = [8, 0, []];
  steps.forEach((step, t) => {
    const names = step.map(({ ids }) => word(ids.at(-1)));
    const wide = Math.max(40, 7.6 * Math.max(...names.map(({ length }) => length)) + 16);
    right = x + wide;
    step.forEach((each, i) => {
      const y = 24 + 46 * i;
      const from = before[each.parent];
      const line = from === undefined ? "" : `<path d="M${from[0]} ${from[1]}` +
        `C${x - 14} ${from[1]} ${from[0] + 14} ${y} ${x} ${y}"/>`;
      const winner = won.has(`${t},${i}`);
      boxes.push(`<g class="${each.fate}" data-step="${t}" data-until="${until[t][i]}" ` +
        `data-edge="${right}"${winner ? " data-won" : ""}>${line}<rect x="${x}" y="${y - 12}" ` +
        `width="${wide}" height="24" rx="5"/>${label(x + wide / 2, y + 4.5, names[i])}` +
        `${label(x + wide / 2, y + 23, nats(each.score), "clv-small")}</g>`);
    });
    before = step.map((_, i) => [right, 24 + 46 * i]);
    x = right + 34;
  });
  const high = 46 * Math.max(...steps.map(({ length }) => length)) + 6;
  return `<svg class="clv-tree" role="img" width="${right + 8}" height="${high}" ` +
    `aria-label="Tree of the search; the list below has the same candidates">${boxes.join("")}</svg>`;
}

function label(x, y, text, kind = "") {
  return `<text class="${kind}" x="${x}" y="${y}" text-anchor="middle">${escape(text)}</text>`;
}

// The candidates of one step, as a list.
function listStep(step, text) {
  return step.map((each) => `<li class="${each.fate}"><span class="clv-score">${nats(each.score)}` +
    `</span><span>${escape(text(each.ids.slice(1)))}</span><span class="clv-fate">` +
    `${FATES[each.fate]}</span></li>`).join("");
}

function sayStep(steps, t, text) {
  const count = (fate) => steps[t].filter((each) => each.fate === fate).length;
  const live = t ? steps[t - 1].filter(({ fate }) => fate === "kept").length : 1;
  const best = steps.slice(0, t + 1).flat().filter(({ fate }) => fate === "finished")
    .sort((a, b) => b.rank - a.rank)[0];
  const parts = [[count("kept"), "stay live", "stays live"], [count("finished"), "end here", "ends here"],
    [count("beaten") + count("cut"), "can’t win any more", "can’t win any more"]]
    .filter(([n]) => n).map(([n, many, one]) => `${n} ${n > 1 ? many : one}`);
  return `Step ${t + 1}: ${live} live prefix${live > 1 ? "es" : ""}, continued with every word. ` +
    `Of the best continuations ${parts.join(", ")}.` +
    (best ? ` Best finished: “${text(best.ids.slice(1, -1))}”, ${nats(best.score)} nats.` : "");
}

function nats(value) {
  return value.toFixed(2).replace("-", "−");
}

function escape(text) {
  const codes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (letter) => codes[letter]);
}
