"""Caption photographs with onnxruntime, NumPy and Pillow: caption.py PHOTO ..."""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps

HERE = Path(__file__).parent
MODEL = json.loads((HERE / "captioner.json").read_text("utf-8"))
WORDS, SEARCH = MODEL["words"], MODEL["search"]
PAD, START, END, UNK = map(WORDS.index, "<pad> <start> <end> <unk>".split())
encoder = InferenceSession(str(HERE / "encoder.onnx"))
step = InferenceSession(str(HERE / "step.onnx"))
STATE = [each.name for each in encoder.get_outputs()]
CHANGED = [each.name for each in step.get_outputs()[2:]]


def read(path):  # as (1, 3, 256, 256) uint8
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    image = image.resize(2 * [MODEL["image_size"]], Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)[None]


def forbidden(words):  # what may not follow them
    ids, n = [PAD, START] + [UNK] * SEARCH["forbid_unk"], SEARCH["no_repeat"]
    ids += [END] * (len(words) <= SEARCH["min_words"])
    runs = [words[i : i + n] for i in range(len(words) - n + 1)] if n else []
    return ids + [r[-1] for r in runs if r[:-1] == words[len(words) - n + 1 :]]


def caption(path):
    state = dict(zip(STATE, encoder.run(None, {"images": read(path)})))
    places, power = SEARCH["beam_size"], SEARCH["length_normalisation"]
    longest = SEARCH["max_words"] + 1  # <end> included
    beam, best = [(0, [START], 0)], (-np.inf, None)
    for length in range(1, longest + 1):
        state["words"] = np.array([[words[-1] for _, words, _ in beam]])
        log_probs, _, *changed = step.run(None, state)
        totals = log_probs[0] + np.array([[score] for score, _, _ in beam])
        for total, (_, words, _) in zip(totals, beam):
            total[forbidden(words)] = -np.inf
        longer = []
        for place in np.argsort(-totals, axis=None)[:places]:
            row, word = divmod(int(place), len(WORDS))
            score, words = totals[row, word], [*beam[row][1], word]
            if word != END:
                longer.append((score, words, row))
            elif score > -np.inf:
                best = max(best, (score / length**power, words[:-1]))
                places -= 1
        longer = [each for each in longer if each[0] / longest**power > best[0]]
        if not longer or length == longest:
            break
        beam, rows = longer, [row for _, _, row in longer]
        for name, tensor in zip(CHANGED, changed):
            state[name.removeprefix("next_")] = tensor[:, rows]
    words = best[1] or beam[0][1]
    return " ".join(WORDS[word] for word in words[1:])


for path in sys.argv[1:]:
    print(f"{path}: {caption(path)}")
