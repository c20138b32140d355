// BLEU calculator: what the reader types is scored at every key. `data`: references (lists of words),
// names (of the four orders). It writes what captionlib.views wrote on the page for the first caption.
startAll("bleu", (root, data) => {
  const input = root.querySelector("input[type=text]");
  const orders = [...root.querySelectorAll(".clv-orders > li")];
  const people = [...root.querySelectorAll(".clv-people li")];
  const status = root.querySelector(".clv-status");
  const scores = root.querySelector(".clv-bleus");
  const first = input.value;
  let pause;

  const element = (name, text, style) =>
    Object.assign(document.createElement(name), { textContent: text }, style && { className: style });

  function show(found, words) {
    const said = new Set(words);
    people.forEach((item, i) => {
      const each = data.references[i].map((word) => element(said.has(word) ? "mark" : "span", word));
      item.replaceChildren(...each.flatMap((word, j) => (j ? [" ", word] : [word])));
    });
    orders.forEach((item, i) => {
      const share = found.possible[i] ? (found.matched[i] / found.possible[i]).toFixed(2) : "none";
      item.querySelector("span").replaceChildren(`${data.names[i]}: `,
        element("b", `${found.matched[i]} of ${found.possible[i]}`),
        ` found, precision ${share}`);
      item.querySelector("ul").replaceChildren(...found.rows[i].map(([run, verdict]) => {
        const chip = element("li", run, verdict);
        if (verdict !== "found") chip.append(element("span", ` (${verdict})`, "clv-sr"));
        return chip;
      }));
    });
    scores.replaceChildren(...found.scores.flatMap((value, i) => {
      const cell = element("span", `BLEU-${i + 1} `);
      cell.append(element("b", value.toFixed(1)));
      return i ? [" ", cell] : [cell];
    }));
  }

  const sentence = (found) =>
    `${found.length} words; the closest reference has ${found.closest}. ` +
    `Brevity penalty ${found.brevity.toFixed(3)}. BLEU-4 ${found.scores[3].toFixed(1)}.`;

  function update() {
    const words = wordsOf(input.value);
    const found = bleu(data.references, words);
    show(found, words);
    clearTimeout(pause); // spoken once the typing rests
    pause = setTimeout(() => (status.textContent = sentence(found)), 500);
  }

  input.addEventListener("input", update);
  root.querySelector("button").addEventListener("click", () => { input.value = first; update(); });
  root.querySelector(".clv-type").hidden = false;
  update();
});
