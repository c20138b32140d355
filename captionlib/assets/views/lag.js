// Lag view: one word is about the box, and the map of every word is held against it. The curve and
// small pictures are on the page already; this moves the dot and the large picture. `data`: names,
// says, one each a word.
startAll("lag", (root, data) => {
  const large = root.querySelector(".clv-stage img");
  const items = [...root.querySelectorAll(".clv-sheet li")];
  const dots = [...root.querySelectorAll("[data-word]")];

  function show(word) {
    const small = items[word].querySelector("img");
    [large.src, large.alt] = [small.src, small.alt];
    for (const each of [items, dots])
      each.forEach((part, i) => part.classList.toggle("now", i === word));
  }

  root.querySelector(".clv-stage").hidden = false;
  stepper(root, data.names, show, (word) => data.says[word]);
});
