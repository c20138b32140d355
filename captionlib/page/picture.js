// From a picture of any size to the 256 x 256 pixels that the captioner sees: the
// same numbers as Pillow's bicubic `resize`, which training used. (From version 13
// on, Pillow squeezes tall pictures vertically first, which rounds differently.)

const SIDE = 256;

// Which pixels an output pixel blends, and how much of each: [first, weights].
// A picture that shrinks is smoothed over as many more pixels.
function bicubicTaps(from, to) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - 2 * wide + 0.5), 0);
    const end = Math.min(Math.trunc(centre + 2 * wide + 0.5), from);
    const weights = Array.from({ length: end - first }, (_, j) =>
      bicubic((first + j - centre + 0.5) / wide));
    const total = weights.reduce((a, b) => a + b, 0);
    return [first, Int32Array.from(weights, (w) => roundAway((w / total) * (1 << 22)))];
  });
}

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

function roundAway(x) {
  return x < 0 ? Math.trunc(x - 0.5) : Math.trunc(x + 0.5);
}

// Blend pixels that lie `stride` numbers apart; rounded and clipped to a byte.
function blend(pixels, at, stride, weights) {
  let sum = 1 << 21; // half a unit: rounds
  for (let j = 0; j < weights.length; j++) sum += weights[j] * pixels[at + j * stride];
  return Math.min(Math.max(sum >> 22, 0), 255);
}

// (256, 256, 3) bytes, whatever the picture's shape. `readRows(top, count)` gives
// rows of RGBA bytes; they are read a few at a time, so that large pictures fit.
function shrink(width, height, readRows) {
  const across = bicubicTaps(width, SIDE);
  const narrow = new Uint8Array(height * SIDE * 3);
  const count = Math.max(1, Math.floor(2 ** 20 / width));
  for (let top = 0; top < height; top += count) {
    const rows = Math.min(count, height - top);
    const pixels = readRows(top, rows);
    let at = top * SIDE * 3;
    for (let row = 0; row < rows; row++)
      for (const [first, weights] of across)
        for (let c = 0; c < 3; c++)
          narrow[at++] = blend(pixels, 4 * (row * width + first) + c, 4, weights);
  }
  const pixels = new Uint8Array(SIDE * SIDE * 3);
  bicubicTaps(height, SIDE).forEach(([first, weights], row) => {
    for (let i = 0; i < SIDE * 3; i++)
      pixels[row * SIDE * 3 + i] = blend(narrow, first * SIDE * 3 + i, SIDE * 3, weights);
  });
  return pixels;
}

// Grey discs over the pixels. Each has x, y and radius, as shares of the picture's
// width, height, and longer side; `shape` is [width, height] of the picture.
function greyOut(pixels, discs, [width, height]) {
  const painted = pixels.slice();
  const longer = Math.max(width, height);
  for (let i = 0; i < SIDE * SIDE; i++) {
    const x = ((i % SIDE) + 0.5) / SIDE;
    const y = (Math.floor(i / SIDE) + 0.5) / SIDE;
    const inside = (disc) => Math.hypot(
      ((x - disc.x) * width) / longer, ((y - disc.y) * height) / longer) < disc.radius;
    if (discs.some(inside)) painted.fill(128, 3 * i, 3 * i + 3);
  }
  return painted;
}
