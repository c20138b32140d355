// The engine: a memory that JavaScript shares with engine.wasm, a captioner's
// matrices in it, and the encoder, from pixels to a grid of vectors.

class Engine {
  // `code`: the bytes of engine.wasm. `model`: what pack.py wrote of the captioner.
  static async start(code, model) {
    const { instance } = await WebAssembly.instantiate(code);
    return new Engine(instance.exports, model);
  }

  constructor(wasm, model) {
    this.wasm = wasm;
    this.model = model;
    this.matrices = {};
    this.free = wasm.__heap_base.value; // everything from this address on is free
  }

  // ------------------------------------------------------------------ memory

  // The address of so many bytes. To give them back, set `free` to it.
  take(bytes) {
    const at = (this.free + 15) & ~15;
    this.free = at + bytes;
    const missing = this.free - this.wasm.memory.buffer.byteLength;
    if (missing > 0) this.wasm.memory.grow(Math.ceil(missing / 65536));
    return at;
  }

  // A view of numbers in the memory, good until the memory grows.
  floats(at, count) {
    return new Float32Array(this.wasm.memory.buffer, at, count);
  }

  put(numbers) {
    const at = this.take(4 * numbers.length);
    this.floats(at, numbers.length).set(numbers);
    return at;
  }

  // ---------------------------------------------------------------- matrices

  // Decode one part of the weights, in base64, to float32. They take no more time from here
  // on than if they had been stored so.
  load(part, base64) {
    const bytes = fromBase64(base64);
    const here = Object.entries(this.model.matrices).filter(([, m]) => m.part === part);
    for (const [name, { out, in: inputs }] of here) {
      const wide = (out + 7) & ~7; // whole panels of 8 channels
      const bias = this.take(4 * wide);
      const weights = this.take(4 * wide * inputs);
      this.matrices[name] = { out, inputs, wide, bias, weights };
    }
    const start = this.take(bytes.length); // the codes, behind the matrices
    new Uint8Array(this.wasm.memory.buffer).set(bytes, start);
    for (const [name, { at }] of here) this.decode(this.matrices[name], start + at);
    this.free = start;
  }

  decode({ wide, inputs, bias, weights }, at) {
    this.floats(bias, wide).set(this.floats(at, wide));
    const behind = at + 4 * wide;
    if (this.model.numbers === "float16")
      this.wasm.from_float16(behind, weights, wide * inputs);
    else this.wasm.from_int8(behind + 4 * wide, behind, weights, inputs, wide);
  }

  // Row `row` of a matrix: a word's vector.
  row(name, row) {
    const { weights, inputs } = this.matrices[name];
    const panel = this.floats(weights + 4 * (row & ~7) * inputs, 8 * inputs);
    return new Float32Array(inputs).map((_, k) => panel[8 * k + (row & 7)]);
  }

  // clamp(x · W + b) for every row of `x`, a flat array; so is the answer.
  linear(name, x, low = -Infinity, high = Infinity) {
    const { out, inputs, wide, bias, weights } = this.matrices[name];
    const rows = x.length / inputs;
    const mark = this.free;
    const from = this.put(x);
    const to = this.take(4 * rows * wide);
    this.wasm.pointwise(from, weights, bias, to, rows, inputs, wide, low, high);
    const y = new Float32Array(rows * out);
    for (let r = 0; r < rows; r++) y.set(this.floats(to + 4 * r * wide, out), r * out);
    this.free = mark;
    return y;
  }

  // ----------------------------------------------------------------- encoder

  // From (256, 256, 3) pixels, 0 to 255, to `values` (side * side, dim), flat.
  encode(pixels) {
    const { image_size, grid_size, mean, std, blocks } = this.model.encoder;
    const arena = this.free;
    const picture = normalise(pixels, image_size ?? 256, mean, std);
    let x = { at: this.put(picture), side: image_size ?? 256, channels: 3 };
    for (const block of blocks) x = this.block(block, x, arena);
    const values = this.floats(x.at, x.side * x.side * x.channels).slice();
    this.free = arena;
    const grid = { values, side: x.side, dim: x.channels };
    return grid_size === null ? grid : average(grid, grid_size);
  }

  // Its layers one after the other. All that stays is the output, moved to the
  // arena's start.
  block({ layers, shortcut }, x, arena) {
    const y = layers.reduce((input, layer) => this.layer(layer, input), x);
    const count = y.side * y.side * y.channels;
    if (shortcut) this.wasm.add(y.at, x.at, count);
    this.free = arena;
    const at = this.take(4 * count);
    this.floats(at, count).set(this.floats(y.at, count));
    return { ...y, at };
  }

  layer({ matrix, depthwise, kernel, stride, relu6 }, x) {
    const { weights, bias, out, inputs } = this.matrices[matrix];
    const side = Math.ceil(x.side / stride);
    // As TensorFlow pads: an odd row or column of zeros goes below or to the right.
    const before = Math.max((side - 1) * stride + kernel - x.side, 0) >> 1;
    const [low, high] = relu6 ? [0, 6] : [-Infinity, Infinity];
    const at = this.take(4 * side * side * out);
    if (depthwise) {
      this.wasm.depthwise(x.at, weights, bias, at, x.side, out, kernel, stride, before, low, high);
    } else {
      const from = kernel === 1 ? x.at : this.patches(x, side, kernel, stride, before);
      this.wasm.pointwise(from, weights, bias, at, side * side, inputs, out, low, high);
    }
    return { at, side, channels: out };
  }

  // What each position of a filter covers, as a row: a convolution is the product
  // of these rows and the filters. Only the first layer needs this.
  patches(x, side, kernel, stride, before) {
    const width = kernel * x.channels;
    const at = this.take(4 * side * side * kernel * width);
    const to = this.floats(at, side * side * kernel * width).fill(0);
    const from = this.floats(x.at, x.side * x.side * x.channels);
    for (let place = 0; place < side * side; place++) {
      const top = Math.floor(place / side) * stride - before;
      const left = (place % side) * stride - before;
      for (let i = Math.max(0, -top); i < kernel && top + i < x.side; i++) {
        const first = Math.max(0, left);
        const end = Math.min(x.side, left + kernel);
        const line = from.subarray(
          ((top + i) * x.side + first) * x.channels, ((top + i) * x.side + end) * x.channels);
        to.set(line, (place * kernel + i) * width + (first - left) * x.channels);
      }
    }
    return at;
  }
}

function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// Pixels on the scale of the weights, stretched to `side` pixels by straight lines
// between neighbours, as torch's `interpolate` does.
function normalise(pixels, side, mean, std) {
  const from = Math.sqrt(pixels.length / 3);
  const spots = Array.from({ length: side }, (_, i) => {
    const place = Math.max(((i + 0.5) * from) / side - 0.5, 0);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, from - 1), place - first];
  });
  const picture = new Float32Array(side * side * 3);
  let at = 0;
  for (const [above, below, down] of spots)
    for (const [left, right, along] of spots)
      for (let c = 0; c < 3; c++) {
        const upper = mix(pixels, 3 * (above * from + left) + c, 3 * (above * from + right) + c, along);
        const lower = mix(pixels, 3 * (below * from + left) + c, 3 * (below * from + right) + c, along);
        picture[at++] = ((upper + down * (lower - upper)) / 255 - mean[c]) / std[c];
      }
  return picture;
}

function mix(numbers, i, j, share) {
  return numbers[i] + share * (numbers[j] - numbers[i]);
}

// A grid averaged to `size` cells a side, as torch's AdaptiveAvgPool2d does.
function average({ values, side, dim }, size) {
  const spans = Array.from({ length: size }, (_, i) =>
    [Math.floor((i * side) / size), Math.ceil(((i + 1) * side) / size)]);
  const means = new Float32Array(size * size * dim);
  spans.forEach(([top, bottom], i) => spans.forEach(([left, right], j) => {
    const count = (bottom - top) * (right - left);
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++)
        for (let c = 0; c < dim; c++)
          means[(i * size + j) * dim + c] += values[(row * side + column) * dim + c] / count;
  }));
  return { values: means, side: size, dim };
}
