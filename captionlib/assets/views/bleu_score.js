// BLEU of one caption, the formulas of captionlib.metrics; the tests hold the two equal.

// "A dog, running!" -> ["a", "dog", "running"]: small letters without punctuation, like the data.
function wordsOf(text) {
  return text.toLowerCase().replace(/[^\p{L}\p{N}\p{M}'’-]+/gu, " ").trim().split(" ").filter(Boolean);
}

// The runs of n words, as strings: no word contains a space.
function runs(words, n) {
  return Array.from({ length: Math.max(0, words.length - n + 1) }, (_, i) => words.slice(i, i + n).join(" "));
}

function count(items) {
  const counts = new Map();
  for (const item of items) counts.set(item, (counts.get(item) || 0) + 1);
  return counts;
}

// For each n-gram of the caption, in order: "found", "clipped" (said more often than by any one
// person) or "missing".
function verdicts(references, words, n) {
  const people = references.map((reference) => count(runs(reference, n)));
  const said = new Map();
  return runs(words, n).map((run) => {
    said.set(run, (said.get(run) || 0) + 1);
    const most = Math.max(...people.map((counts) => counts.get(run) || 0));
    return [run, most === 0 ? "missing" : said.get(run) <= most ? "found" : "clipped"];
  });
}

// Length of the reference closest in length, of two equally close the shorter.
function closestLength(references, length) {
  return references.map((reference) => reference.length)
    .sort((a, b) => Math.abs(a - length) - Math.abs(b - length) || a - b)[0];
}

// matched and possible for n = 1 to 4, r and c, brevity penalty, and BLEU-1 to BLEU-4, x100.
function bleu(references, words) {
  const rows = [1, 2, 3, 4].map((n) => verdicts(references, words, n));
  const matched = rows.map((row) => row.filter(([, verdict]) => verdict === "found").length);
  const possible = rows.map((row) => row.length);
  const closest = closestLength(references, words.length);
  const ratio = (words.length + 1e-15) / (closest + 1e-9);
  const brevity = Math.exp(Math.min(0, 1 - 1 / ratio));
  let product = 1;
  const scores = rows.map((_, i) => {
    product *= (matched[i] + 1e-15) / (possible[i] + 1e-9);
    return 100 * product ** (1 / (i + 1)) * brevity;
  });
  return { rows, matched, possible, closest, length: words.length, brevity, scores };
}
