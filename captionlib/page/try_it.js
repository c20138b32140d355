// The page "Try it". Everything it shows is computed here, from the reader's picture,
// by a Writer, which it loads with the first photograph.

const OCCLUSIONS = 7; // positions a side of the square that covers
const COVER = 0.25; // its side, as a share of the picture's

class TryIt {
  constructor(root) {
    this.root = root;
    this.part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.word = null; // the chosen one, by its place
    this.beside = "";
    const changed = () => this.recaption();
    this.brush = new Brush(this.part("surface"), { changed, draw: () => this.drawPhotos() });
    this.listSamples();
    this.listen();
    this.part("size").textContent = `${MEGABYTES} MB, once`;
    root.hidden = false;
  }

  listSamples() {
    for (const { name, alt } of SAMPLES) {
      const item = document.createElement("li");
      item.innerHTML = `<button type="button"><img src="${FOLDER}${name}-small.jpg" ` +
        `alt="${escape(alt)}" width="120" height="90"></button>`;
      item.firstChild.addEventListener("click", async () =>
        this.open(() => fetchScript(name).then(asBlob), name.replaceAll("-", " ")));
      this.part("samples").append(item);
    }
    this.part("samples").hidden = !SAMPLES.length;
  }

  listen() {
    const on = (name, event, act) => this.part(name).addEventListener(event, act);
    on("file", "click", () => { this.part("file").value = ""; }); // it may be the same again
    on("file", "change", () => this.openFirst(this.part("file").files));
    for (const event of ["dragover", "dragleave", "drop"])
      this.root.addEventListener(event, (dragged) => {
        dragged.preventDefault(); // or the browser would open the file
        this.root.classList.toggle("clt-over", event === "dragover");
      });
    this.root.addEventListener("drop", ({ dataTransfer }) => this.openFirst(dataTransfer.files));
    document.addEventListener("paste", ({ clipboardData }) => {
      if (clipboardData.files.length) this.openFirst(clipboardData.files);
    });
    on("brush", "click", () => this.turnBrush(!this.brush.on));
    on("radius", "input", () => { this.brush.radius = this.part("radius").value / 100; });
    on("undo", "click", () => { this.brush.undo(); this.recaption(); });
    on("clear", "click", () => { this.brush.clear(); this.recaption(); });
    for (const event of ["focus", "blur"]) on("surface", event, () => this.drawPhotos());
    on("k", "input", () => this.recaption());
    on("temperature", "input", () => this.labelTemperature());
    on("draw", "click", () => this.drawCaptions());
    for (const button of this.root.querySelectorAll("[data-beside]"))
      button.addEventListener("click", () => this.putBeside(button.dataset.beside));
  }

  // ------------------------------------------------------------- a photograph

  openFirst(files) {
    if (!files.length) return this.tell("That holds no file; choose a photograph.");
    return this.open(async () => files[0], files[0].name);
  }

  // `get` promises a file. Whatever goes wrong ends in one line.
  async open(get, name) {
    const turn = this.opening = {};
    this.tell(`Reading ${name}.`);
    try {
      const start = performance.now();
      const picture = await openPicture(await get()).catch(() => {
        throw new Error(`${name}: is not an image that this browser can read; choose another`);
      });
      const read = performance.now() - start;
      this.writer ??= await this.load();
      if (turn !== this.opening) return; // another was chosen meanwhile
      this.show(picture, name, read);
    } catch (error) {
      this.tell(error.message);
    }
  }

  // One loading at a time, and a new one if it failed.
  load() {
    const progress = this.part("progress");
    progress.hidden = false;
    this.tell("Loading the captioner.");
    this.loading ??= loadWriter((share) => { progress.value = share; })
      .finally(() => { progress.hidden = true; this.loading = null; });
    return this.loading;
  }

  show(picture, name, read) {
    const { view } = picture;
    Object.assign(this, { picture, name, read, word: null, beside: "" });
    this.shape = [view.width, view.height];
    this.root.style.setProperty("--shape", this.shape.join(" / "));
    this.part("k").value = this.writer.settings.beam_size;
    this.part("drawn").replaceChildren();
    this.labelTemperature();
    this.brush.strokes = [];
    this.whole = this.encode(picture.pixels);
    this.part("result").hidden = false;
    document.querySelector(".clt-still")?.setAttribute("hidden", "");
    this.recaption();
    this.turnBrush(false);
  }

  encode(pixels) {
    const start = performance.now();
    const grid = this.writer.engine.encode(pixels);
    this.encoding = performance.now() - start;
    return grid;
  }

  get pixels() {
    return greyOut(this.picture.pixels, this.brush.discs, this.shape);
  }

  // Write the caption anew: of what is painted now, with the chosen k.
  recaption() {
    const k = Number(this.part("k").value);
    this.occlusion = null;
    this.grid = this.brush.discs.length ? this.encode(this.pixels) : this.whole;
    const start = performance.now();
    this.caption = this.writer.search(this.grid, k);
    this.searching = performance.now() - start;
    this.before = this.grid === this.whole ? this.caption : this.writer.search(this.whole, k);
    const { words, alphas } = this.caption;
    this.word = Math.max(Math.min(this.word ?? sharpest(alphas), words.length - 1), 0);
    this.listWords();
    this.chooseWord(this.word);
    this.showSearch(k);
    this.putBeside(this.beside); // covers anew, if that stands beside
    const times = [["reading", this.read], ["encoding", this.encoding], ["searching", this.searching]];
    this.part("times").textContent = `Here, ${times.map(([what, ms]) =>
      `${what} took ${ms.toFixed(0)} ms`).join(", ")}.`;
  }

  // ------------------------------------------------------------------ the words

  listWords() {
    const { words, logProb, finished } = this.caption;
    const kept = inCommon(this.before.words, words);
    const items = words.map((word, i) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = kept.includes(i) ? escape(word)
        : `<mark>${escape(word)}<span class="clv-sr"> (changed)</span></mark>`;
      button.addEventListener("click", () => this.chooseWord(i));
      item.append(button);
      return item;
    });
    this.part("words").replaceChildren(...items);
    this.part("before").hidden = words.join() === this.before.words.join();
    this.part("before").textContent = `Unpainted: ${this.before.words.join(" ")}`;
    this.tell(`${this.name}: “${words.join(" ")}”, log-probability ${nats(logProb)} nats` +
      `${finished ? "" : ", cut off at its longest"}.`);
  }

  chooseWord(word) {
    this.word = word;
    [...this.part("words").children].forEach((item, i) =>
      item.firstChild.setAttribute("aria-pressed", String(i === word)));
    this.drawPhotos();
  }

  // Which map to lay over which photograph: [cells, cells a side, brightest, sentence].
  maps() {
    const { words, alphas } = this.caption;
    const top = Math.max(...alphas.map((alpha) => Math.max(...alpha)));
    const attention = (i) => [alphas[i], this.grid.side, top,
      `${words[i]}: ${sayMap(alphas[i], this.grid.side)}`];
    const maps = [alphas.length ? attention(this.word) : null, null];
    if (this.beside === "before" && this.word > 0) maps[1] = attention(this.word - 1);
    if (this.beside === "occlusion" && this.occlusion) {
      const drops = this.occlusion.map((each) => Math.max(each[this.word], 0));
      maps[1] = [drops, OCCLUSIONS, Math.max(...drops, 0.5), sayDrops(words[this.word], drops)];
    }
    return maps;
  }

  drawPhotos() {
    const maps = this.maps();
    this.drawPhoto("", this.brush.on ? null : maps[0], this.part("surface"));
    this.drawPhoto("-2", maps[1], this.part("other-photo"));
    const first = this.beside === "before" && this.word === 0;
    if (first) this.part("says-2").textContent = "This is the first word.";
  }

  drawPhoto(which, map, frame) {
    const canvas = this.part(`photo${which}`);
    [canvas.width, canvas.height] = this.shape;
    const context = canvas.getContext("2d");
    context.drawImage(this.picture.view, 0, 0);
    this.brush.paint(context);
    drawVeil(this.part(`veil${which}`), map);
    const says = map ? map[3] : this.brush.on ? "Paint over the photograph." : "";
    this.part(`says${which}`).textContent = says;
    const about = this.brush.on && !which ? "arrow keys move the brush, space paints" : says;
    frame.setAttribute("aria-label", `${this.name}. ${about}`);
  }

  putBeside(what) {
    this.beside = what;
    this.covering = {}; // ends one under way
    this.part("covering").hidden = true;
    for (const button of this.root.querySelectorAll("[data-beside]"))
      button.setAttribute("aria-pressed", String(button.dataset.beside === what));
    this.part("other").hidden = !what;
    if (what === "occlusion" && !this.occlusion) this.cover();
    this.drawPhotos();
  }

  // ----------------------------------------------------------------- the brush

  turnBrush(on) {
    this.brush.turn(on);
    this.part("brush").setAttribute("aria-pressed", String(on));
    this.part("surface").setAttribute("role", on ? "application" : "img");
    this.root.classList.toggle("clt-painting", on);
    if (on) this.part("surface").focus({ preventScroll: true });
  }

  // ---------------------------------------------------------- the occlusion map

  // Cover one part of the picture after the other, and see how much less likely each
  // word becomes.
  async cover() {
    const turn = this.covering;
    const { pixels, writer, caption } = this;
    const ids = caption.finished ? [...caption.ids, writer.end] : caption.ids;
    const open = writer.score(this.grid, ids);
    const progress = this.part("covering");
    progress.hidden = false;
    const drops = [];
    for (let place = 0; place < OCCLUSIONS ** 2; place++) {
      progress.value = place / OCCLUSIONS ** 2;
      await new Promise((resume) => { setTimeout(resume); }); // lets the page live
      if (turn !== this.covering) return;
      const grid = writer.engine.encode(covered(pixels, place));
      drops.push(writer.score(grid, ids).map((score, i) => open[i] - score));
    }
    progress.hidden = true;
    this.occlusion = drops;
    this.drawPhotos();
    this.tell("Covered every part once. Bright: covering it makes the word less likely.");
  }

  // ----------------------------------------------------------- search, sampling

  showSearch(k) {
    const { steps, ids, finished } = this.caption;
    const { start, end, words } = this.writer;
    this.part("k-label").textContent = `Beam size k = ${k}`;
    const text = (some) => some.map((id) => words[id]).join(" ");
    const best = [start, ...ids, ...(finished ? [end] : [])];
    const part = this.part("search");
    part.innerHTML = SEARCH_VIEW(drawTree(steps, best, (id) => words[id]), steps.length);
    const lists = part.querySelector(".clv-beams");
    const scroll = part.querySelector(".clv-scroll");
    const nodes = [...part.querySelectorAll("[data-step]")];
    stepper(part, steps.map((_, t) => `step ${t + 1} of ${steps.length}`), (step) => {
      for (const node of nodes) {
        const born = Number(node.dataset.step);
        node.style.visibility = born > step ? "hidden" : "visible";
        node.classList.toggle("dead", born <= step && step > Number(node.dataset.until));
        node.classList.toggle("won", "won" in node.dataset && step === steps.length - 1);
      }
      const edge = nodes.find(({ dataset }) => Number(dataset.step) === step).dataset.edge;
      scroll.scrollLeft = edge - scroll.clientWidth + 12;
      lists.innerHTML = `<ol>${listStep(steps[step], text)}</ol>`;
    }, (step) => sayStep(steps, step, text));
  }

  labelTemperature() {
    const value = Number(this.part("temperature").value).toFixed(1);
    this.part("temperature-label").textContent = `Temperature ${value}`;
  }

  drawCaptions() {
    const temperature = Number(this.part("temperature").value);
    this.part("drawn").innerHTML = Array.from({ length: 5 }, () => {
      const { words, logProb } = this.writer.sample(this.grid, temperature);
      return `<li>${escape(words.join(" "))} <span class="clv-score">${nats(logProb)}</span></li>`;
    }).join("");
  }

  tell(text) {
    this.part("status").textContent = text;
  }
}

// The word whose map has the largest weight.
function sharpest(alphas) {
  const peaks = alphas.map((alpha) => Math.max(...alpha));
  return peaks.indexOf(Math.max(...peaks));
}

const SEARCH_VIEW = (tree, steps) => `
  <div class="clv-controls" role="group" aria-label="Step by step" hidden>
    ${["first Start", "back Back", "play Play", "next Next", "last End"].map((each) => {
    const [go, name] = each.split(" ");
    return `<button type="button" data-go="${go}">${name}</button>`;
  }).join("")}
    <label class="clv-wide"><span>Step</span>
      <input type="range" min="0" max="${steps - 1}" value="${steps - 1}" step="1"></label>
  </div>
  <p class="clv-status" role="status"></p>
  <div class="clv-scroll" tabindex="0" role="region" aria-label="Tree of the search">${tree}</div>
  <div class="clv-beams"></div>`;

function asBlob(uri) {
  const [about, text] = uri.split(",");
  return new Blob([fromBase64(text)], { type: about.slice(5, -7) });
}

// The places of `words` that are also in `others`, in the same order: the longest
// common subsequence.
function inCommon(others, words) {
  const longest = Array.from({ length: others.length + 1 }, () =>
    Array.from({ length: words.length + 1 }, () => []));
  for (let i = others.length - 1; i >= 0; i--)
    for (let j = words.length - 1; j >= 0; j--) {
      const without = [longest[i + 1][j], longest[i][j + 1]];
      longest[i][j] = others[i] === words[j] ? [j, ...longest[i + 1][j + 1]]
        : without[Number(without[1].length > without[0].length)];
    }
  return longest[0][0];
}

// Lit where a weight is large, dark where it is small; clear without a map.
function drawVeil(canvas, map) {
  const tall = 72;
  [canvas.width, canvas.height] = [tall, tall];
  if (!map) return;
  const [weights, cells, top] = map;
  const lines = spread(cells, tall, true);
  const context = canvas.getContext("2d");
  const image = context.createImageData(tall, tall);
  upsample(weights, [cells, cells], lines, lines).flat().forEach((weight, i) => {
    const light = Math.min(Math.sqrt(Math.max(weight, 0) / top), 1);
    image.data.set([8, 8, 8, 208 * (1 - light)], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

function sayMap(alpha, side) {
  const largest = Math.max(...alpha);
  const at = alpha.indexOf(largest);
  return `looked most at row ${Math.floor(at / side) + 1} of ${side}, column ` +
    `${(at % side) + 1}, with ${(largest * alpha.length).toFixed(1)} times an even share`;
}

function sayDrops(word, drops) {
  const most = Math.max(...drops);
  if (most < 0.1) return `${word}: no single part matters`;
  const at = drops.indexOf(most);
  return `${word}: covering row ${Math.floor(at / OCCLUSIONS) + 1} of ${OCCLUSIONS}, column ` +
    `${(at % OCCLUSIONS) + 1} costs most, ${most.toFixed(1)} nats`;
}

// The pixels, one square of them grey: the squares' centres form a grid.
function covered(pixels, place) {
  const grey = pixels.slice();
  const bounds = (i) => [-0.5, 0.5].map((half) =>
    Math.round(SIDE * Math.min(Math.max((i + 0.5) / OCCLUSIONS + half * COVER, 0), 1)));
  const [top, bottom] = bounds(Math.floor(place / OCCLUSIONS));
  const [left, right] = bounds(place % OCCLUSIONS);
  for (let row = top; row < bottom; row++)
    grey.fill(128, 3 * (row * SIDE + left), 3 * (row * SIDE + right));
  return grey;
}

document.querySelector(".clt-off").remove();
new TryIt(document.querySelector(".clt"));
