// Three ways to use a decoder: beam search, as in chapter 06; sampling; and the
// score of a given caption.

class Writer {
  constructor(engine) {
    const { words, search, members } = engine.model;
    const decoders = members.map((prefix) => new Decoder(engine, prefix));
    this.engine = engine;
    this.decoder = decoders.length > 1 ? new Ensemble(decoders) : decoders[0];
    this.words = words;
    this.settings = search; // beam_size, length_normalisation, and so on
    [this.pad, this.unk, this.start, this.end] =
      ["<pad>", "<unk>", "<start>", "<end>"].map((word) => words.indexOf(word));
  }

  // Rule out, in place, what may not follow a prefix, which starts with <start>.
  forbid(logProbs, prefix) {
    const { forbid_unk, min_words, no_repeat } = this.settings;
    const never = [this.start, this.pad];
    if (forbid_unk) never.push(this.unk);
    if (prefix.length - 1 < min_words) never.push(this.end);
    if (no_repeat) never.push(...repeats(prefix, no_repeat));
    for (const word of never) logProbs[word] = -Infinity;
  }

  // The best caption with a beam of `beamSize`, and all `steps` of the search: lists
  // of candidates, each with its fate, its parent's index in the list before, and,
  // besides what entered the beam, the best `dropped` of what did not.
  search(grid, beamSize = this.settings.beam_size, dropped = 2) {
    let beam = [{ ids: [this.start], score: 0, alphas: [], index: -1 }];
    let state = this.decoder.begin(grid);
    const done = { best: null, count: 0 };
    const steps = [];
    for (;;) {
      const last = beam.map(({ ids }) => ids[ids.length - 1]);
      const next = this.decoder.step(last, state);
      next.logProbs.forEach((logProbs, row) => this.forbid(logProbs, beam[row].ids));
      const places = beamSize - done.count;
      const candidates = extend(beam, next, places + dropped);
      candidates.forEach((each, place) => {
        if (place < places && each.ids.at(-1) === this.end) this.finish(each, done);
      });
      candidates.forEach((each, place) => {
        each.index = place;
        each.fate ??= place < places ? this.fate(each, done) : "dropped";
      });
      if (candidates.length) steps.push(candidates);
      const live = candidates.filter(({ fate }) => fate === "kept");
      if (!live.length) return { ...this.readOut(done.best ?? beam[0]), steps };
      state = this.decoder.select(next.state, live.map(({ row }) => row));
      beam = live;
    }
  }

  // Put a caption aside that has come to <end>.
  finish(each, done) {
    each.fate = "finished";
    each.rank = each.score / (each.ids.length - 1) ** this.settings.length_normalisation;
    done.count += 1;
    if (done.best === null || each.rank > done.best.rank) done.best = each;
  }

  // Can a live prefix still win? At best, every word to come is certain.
  fate({ ids, score }, { best }) {
    const longest = this.settings.max_words + 1;
    if (ids.length - 1 >= longest) return "cut";
    const hope = score / longest ** this.settings.length_normalisation;
    return best === null || hope > best.rank ? "kept" : "beaten";
  }

  readOut({ ids, score, alphas }) {
    const finished = ids.at(-1) === this.end;
    const words = ids.slice(1, finished ? -1 : undefined);
    return {
      ids: words,
      words: words.map((id) => this.words[id]),
      logProb: score,
      alphas: alphas.slice(0, words.length),
      finished,
    };
  }

  // A caption drawn word by word. A temperature below 1 favours likely words more,
  // one above 1 less.
  sample(grid, temperature = 1, random = Math.random) {
    let state = this.decoder.begin(grid);
    const drawn = { ids: [this.start], score: 0, alphas: [] };
    while (drawn.ids.length <= this.settings.max_words + 1) {
      const next = this.decoder.step([drawn.ids.at(-1)], state);
      const [logProbs] = next.logProbs;
      this.forbid(logProbs, drawn.ids);
      const word = draw(logProbs, temperature, random());
      if (drawn.ids.length === this.settings.max_words + 1 && word !== this.end) break;
      drawn.ids.push(word);
      drawn.score += logProbs[word];
      drawn.alphas.push(next.alphas[0]);
      if (word === this.end) break;
      state = next.state;
    }
    return this.readOut(drawn);
  }

  // The log-probability of each word of a given caption.
  score(grid, ids) {
    let state = this.decoder.begin(grid);
    return ids.map((id, t) => {
      const next = this.decoder.step([t ? ids[t - 1] : this.start], state);
      state = next.state;
      return next.logProbs[0][id];
    });
  }
}

// The words that would complete a run of n words for the second time.
function repeats(words, n) {
  const start = words.length - n + 1;
  const found = [];
  for (let i = 0; i < start; i++)
    if (words.slice(i, i + n - 1).every((word, j) => word === words[start + j]))
      found.push(words[i + n - 1]);
  return found;
}

// The best `count` continuations of all prefixes, best first.
function extend(beam, { logProbs, alphas }, count) {
  const best = []; // [score, row, word], sorted
  let bar = -Infinity;
  beam.forEach(({ score }, row) => {
    for (let word = 0; word < logProbs[row].length; word++) {
      const total = score + logProbs[row][word];
      if (total <= bar) continue;
      const place = best.findIndex(([other]) => other < total);
      best.splice(place < 0 ? best.length : place, 0, [total, row, word]);
      if (best.length > count) best.pop();
      if (best.length === count) bar = best[count - 1][0];
    }
  });
  return best.map(([score, row, word]) => ({
    ids: [...beam[row].ids, word],
    score,
    alphas: [...beam[row].alphas, alphas[row]],
    row,
    parent: beam[row].index,
  }));
}

// A word, given a random number from 0 to 1.
function draw(logProbs, temperature, number) {
  const top = logProbs.reduce((a, b) => Math.max(a, b));
  const weights = Array.from(logProbs, (x) => Math.exp((x - top) / temperature));
  let rest = number * weights.reduce((a, b) => a + b);
  const word = weights.findIndex((weight) => (rest -= weight) < 0);
  return word < 0 ? weights.lastIndexOf(Math.max(...weights)) : word;
}
