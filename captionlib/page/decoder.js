// The decoder of chapter 04: an LSTM that looks at the picture before every word.
// Arrays are flat; `rows` captions of one picture are written at a time.

class Decoder {
  // `prefix`: of the names of its matrices, where a captioner has several decoders.
  constructor(engine, prefix = "") {
    this.engine = engine;
    this.prefix = prefix;
    this.size = engine.matrices[`${prefix}decoder.init_h`].out;
  }

  linear(name, x) {
    return this.engine.linear(`${this.prefix}decoder.${name}`, x);
  }

  row(name, row) {
    return this.engine.row(`${this.prefix}decoder.${name}`, row);
  }

  // The state before the first word. `whole` is from Engine.encode.
  begin(whole) {
    const grid = this.shorten(whole);
    const { values, side, dim } = grid;
    const mean = new Float32Array(dim);
    for (let i = 0; i < values.length; i++) mean[i % dim] += values[i] / (side * side);
    const image = { ...grid, keys: this.linear("attention.encoder_att", values) };
    return { hidden: this.linear("init_h", mean), cell: this.linear("init_c", mean), image };
  }

  // Shorter vectors, if the captioner learned a layer for that, with its ReLU.
  shorten(grid) {
    const name = `${this.prefix}shorten.0`;
    if (!(name in this.engine.matrices)) return grid;
    const values = this.engine.linear(name, grid.values, 0);
    return { ...grid, values, dim: this.engine.matrices[name].out };
  }

  // The state of the captions `rows`, one after the other.
  select({ hidden, cell, image }, rows) {
    const pick = (memory) => join(rows.map((row) => slice(memory, row, this.size)));
    return { hidden: pick(hidden), cell: pick(cell), image };
  }

  // Read a word for each caption, look once, score all words that could come next:
  // arrays of log-probabilities and of attention weights, and the new state.
  step(words, { hidden, cell, image }) {
    const alphas = this.attend(hidden, image);
    const gate = this.linear("f_beta", hidden).map(sigmoid);
    const inputs = join(words.flatMap((word, r) => [
      this.row("embedding", word),
      context(alphas[r], image, slice(gate, r, image.dim)),
    ]));
    const next = this.lstm(inputs, hidden, cell);
    const logits = this.linear("fc", next.hidden);
    const count = logits.length / words.length;
    const logProbs = words.map((_, r) => logSoftmax(slice(logits, r, count)));
    return { logProbs, alphas, state: { ...next, image } };
  }

  // One array of weights a caption: softmax over places of v · relu(key + query).
  attend(hidden, { keys, side }) {
    const queries = this.linear("attention.decoder_att", hidden);
    const size = keys.length / (side * side);
    const v = this.row("attention.full_att", 0);
    return Array.from({ length: hidden.length / this.size }, (_, r) => {
      const scores = new Float32Array(side * side);
      for (let place = 0; place < scores.length; place++)
        for (let a = 0; a < size; a++) {
          const sum = keys[place * size + a] + queries[r * size + a];
          if (sum > 0) scores[place] += v[a] * sum;
        }
      return logSoftmax(scores).map(Math.exp); // the bias of v changes nothing
    });
  }

  // The gates come in PyTorch's order: input, forget, new, output.
  lstm(inputs, hidden, cell) {
    const size = this.size;
    const fromInputs = this.linear("decode_step.ih", inputs);
    const fromHidden = this.linear("decode_step.hh", hidden);
    const next = { hidden: new Float32Array(cell.length), cell: new Float32Array(cell.length) };
    for (let n = 0; n < cell.length; n++) {
      const at = 4 * size * Math.floor(n / size) + (n % size);
      const gate = (i) => fromInputs[at + i * size] + fromHidden[at + i * size];
      next.cell[n] = sigmoid(gate(1)) * cell[n] + sigmoid(gate(0)) * Math.tanh(gate(2));
      next.hidden[n] = sigmoid(gate(3)) * Math.tanh(next.cell[n]);
    }
    return next;
  }
}

// Several decoders behind the interface of one: the mean of their probabilities and
// of their attention.
class Ensemble {
  constructor(members) {
    this.members = members;
  }

  begin(grid) {
    return this.members.map((member) => member.begin(grid));
  }

  select(states, rows) {
    return states.map((state, m) => this.members[m].select(state, rows));
  }

  step(words, states) {
    const steps = states.map((state, m) => this.members[m].step(words, state));
    const mean = (row, numbers) =>
      numbers(steps[0], row).map((_, i) =>
        steps.reduce((sum, step) => sum + numbers(step, row)[i], 0) / steps.length);
    return {
      logProbs: words.map((_, row) =>
        mean(row, ({ logProbs }) => logProbs[row].map(Math.exp)).map(Math.log)),
      alphas: words.map((_, row) => mean(row, ({ alphas }) => alphas[row])),
      state: steps.map(({ state }) => state),
    };
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

function slice(numbers, row, size) {
  return numbers.subarray(row * size, (row + 1) * size);
}

function join(arrays) {
  const joined = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    joined.set(array, at);
    at += array.length;
  }
  return joined;
}

// The mean of a grid's vectors under the weights `alpha`, times `gate`.
function context(alpha, { values, dim }, gate) {
  const mean = new Float32Array(dim);
  for (let place = 0; place < alpha.length; place++)
    for (let d = 0; d < dim; d++) mean[d] += alpha[place] * values[place * dim + d];
  return mean.map((value, d) => value * gate[d]);
}

function logSoftmax(scores) {
  let top = -Infinity;
  for (const score of scores) top = Math.max(top, score);
  let total = 0;
  for (const score of scores) total += Math.exp(score - top);
  const shift = top + Math.log(total);
  return scores.map((score) => score - shift);
}
