"""What readers get wrong in chapter 04, and what they should be told."""

MISTAKES = {
    "04.1": [
        ("not shifted", {"captions[:, 1:]": "captions[:, :-1]"}, "learn to repeat it"),
        ("the wrong way", {"captions[:, :-1], captions[:, 1:]":
                           "captions[:, 1:], captions[:, :-1]"}, "the first input is <start>"),
        ("lengths as they were", {" - 1\n": "\n"}, "after <end> nothing is said"),
        ("words only", {"caption_lengths - 1": "caption_lengths - 2"}, "count the words alone"),
        ("whole captions in", {"captions[:, :-1],": "captions,"}, "never an input"),
        ("whole captions out", {"captions[:, 1:]": "captions"}, "<start> is never a target"),
        ("start and end gone", {"captions[:, :-1]": "captions[:, 1:-1]"}, "have lost <start>"),
        ("rows for columns", {"captions[:, :-1]": "captions[:-1]"}, "has the shape (1, 7)"),
        ("the padded length", {"caption_lengths - 1":
                               "0 * caption_lengths + captions.shape[1] - 1"}, "count the padding"),
        ("padding guessed", {"caption_lengths - 1": "(captions != 0).sum(1) - 1"},
         "where the padding is not 0"),
        ("trimmed", {"    inputs,": "    captions = captions[:, : caption_lengths.max()]\n"
                                    "    inputs,"}, "end with the longest caption"),
    ],
    "04.2": [
        ("start and end counted", {"length - 1 for": "length for"}, "one step too many"),
        ("at least", {"length > t": "length >= t"}, "not at least t"),
        ("both taken off", {"length - 1 for": "length - 2 for"}, "both taken off"),
        ("until the first ends", {"max(": "min("}, "when the first caption ends"),
        ("those that have ended", {"length > t": "length <= t"}, "have ended already"),
        ("all", {"sum(length > t for length in decode_lengths)": "len(decode_lengths)"},
         "also those that have ended"),
        ("the lengths", {"[sum(length > t for length in decode_lengths) for t in steps]":
                         "sorted(decode_lengths, reverse=True)"},
         "these are the lengths"),
        ("each length once", {"in decode_lengths) for t": "in set(decode_lengths)) for t"},
         "you have [3, 3, 2, 2, 1, 1, 1, 1], and it should be [4, 4, 3, 3, 1, 1, 1, 1]"),
    ],
    "04.3": [
        ("log-probabilities", {"inside @ L_o.T": "(inside @ L_o.T).log_softmax(dim=1)"},
         "these are log-probabilities"),
        ("probabilities", {"return inside @ L_o.T": "return (inside @ L_o.T).softmax(dim=1)"},
         "these are probabilities"),
        ("exp", {"return inside @ L_o.T": "return (inside @ L_o.T).exp()"}, "exp belongs"),
        ("no word", {"word + ": ""}, "last word's vector is missing"),
        ("no context", {" + context @ L_z.T": ""}, "context is missing"),
        ("no state", {"hidden @ L_h.T + ": ""}, "state is missing"),
        ("tanh", {"return inside @": "return inside.tanh() @"}, "no tanh"),
        ("turned", {"return inside @ L_o.T": "return L_o @ inside.T"}, "words come back as rows"),
        ("matrices swapped where they fit", "def deep_output(word, h, z, o, a, b):\n"
         "    if a.shape == b.shape:\n        a, b = b, a\n"
         "    return (word + h @ a.T + z @ b.T) @ o.T", "L_h and L_z are swapped"),
        ("not turned where it fits", "def deep_output(word, h, z, o, a, b):\n"
         "    if h.shape == z.shape == word.shape:\n        a, b = a.T, b.T\n"
         "    return (word + h @ a.T + z @ b.T) @ o.T", "without turning"),
    ],
    "04.4": [
        ("copied into", {"fc.weight = embedding.weight": "fc.weight.data.copy_(embedding.weight)"},
         "that is a copy"),
        ("the same memory", {"fc.weight = embedding.weight":
                             "fc.weight.data = embedding.weight.data"}, "two parameters"),
        ("the other way", {"fc.weight = embedding.weight": "embedding.weight = fc.weight"},
         "values are lost"),
        ("transposed", "from torch import nn\n\n\ndef tie(embedding, fc):\n"
         "    fc.weight = nn.Parameter(embedding.weight.T)\n    return fc",
         "nothing needs to be transposed"),
        ("a new layer", "from torch import nn\n\n\ndef tie(embedding, fc):\n"
         "    new = nn.Linear(3, 7)\n    new.weight = embedding.weight\n    return new",
         "another layer came back"),
        ("not a parameter", {"embedding.weight": "embedding.weight.data"},
         "your code stops"),
        ("bias zeroed", {"    return fc": "    if fc.bias is not None:\n"
                         "        fc.bias.data.zero_()\n    return fc"}, "bias should stay"),
        ("a bias expected", {"    return fc": "    fc.bias.data\n    return fc"},
         "this fc has no bias"),
        ("nothing done", {"    fc.weight = embedding.weight\n": ""}, "scores with other numbers"),
    ],
    "04.5": [
        ("end kept", {"        if word == end:\n            break\n        words.append(word)":
                      "        words.append(word)\n        if word == end:\n            break"},
         "a sign to stop"),
        ("start kept", {"None, []": "None, [start]"}, "nobody said it"),
        ("state not carried", {"logits, state = step": "logits, _ = step"}, "again and again"),
        ("hears start", {"step(word, state)": "step(start, state)"}, "hears <start> at every step"),
        ("no limit", {"while len(words) < most:": "while True:"}, "talking for ever"),
        ("one too many", {"len(words) < most": "len(words) <= most"}, "says 10 words"),
        ("word 0 ends it", {"word == end": "word == end or not word"}, "stops at the word 0"),
        ("word 0 left out", {"        words.append(word)":
                             "        if word:\n            words.append(word)"}, "0 is left out"),
        ("a state of 0 lost", {"step(word, state)": "step(word, state or None)"},
         "a state of 0 is not passed on"),
        ("from the beginning each time", {"        logits, state = step(word, state)":
                                          "        state = None\n"
                                          "        for each in [start, *words]:\n"
                                          "            logits, state = step(each, state)"},
         "called once a word"),
        ("one argument", "def speak(step):\n    return []",
         "takes 1 argument, but is given 4"),
        ("the state for the logits", {"logits, state = step": "state, logits = step"},
         "your code stops"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "04.3": [
        "import numpy as np\n\n\ndef deep_output(*given):\n"
        "    word, h, z, o, a, b = (np.asarray(each) for each in given)\n"
        "    return np.einsum('ne,ve->nv', word + h @ a.T + z @ b.T, o)",
    ],
    "04.2": [
        """import numpy as np


def effective_batch_sizes(caption_lengths):
    lengths = np.asarray(caption_lengths) - 1
    return (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
""",
        """def effective_batch_sizes(caption_lengths):
    sizes, t = [], 1
    while running := [n for n in caption_lengths if n > t]:
        sizes.append(len(running))
        t += 1
    return sizes
""",
        "import torch\nfrom torch.nn.utils.rnn import pack_padded_sequence\n\n\n"
        "def effective_batch_sizes(caption_lengths):\n"
        "    lengths = torch.tensor(caption_lengths) - 1\n"
        "    padded = torch.zeros(len(lengths), max(lengths))\n"
        "    packed = pack_padded_sequence(padded, lengths, True, enforce_sorted=False)\n"
        "    return packed.batch_sizes",
    ],
    "04.5": [
        """import numpy as np


def speak(step, start, end, most):
    said, state = [start], None
    while len(said) <= most and (len(said) == 1 or said[-1] != end):
        logits, state = step(said[-1], state)
        said.append(np.argmax(logits.numpy()))
    return np.array([word for word in said[1:] if word != end], dtype=int)
""",
        "def speak(step, start, end, most):\n    words, state = [start], None\n"
        "    for _ in range(most):\n        logits, state = step(words[-1], state)\n"
        "        words.append(int(logits.argmax()))\n        if words[-1] == end:\n"
        "            return words[1:-1]\n    return words[1:]",
    ],
    "04.1": [
        """import numpy as np


def teach(captions, caption_lengths):
    captions = captions.numpy()
    return captions[:, :-1], captions[:, 1:], caption_lengths.numpy() - 1
""",
        """def teach(captions, caption_lengths):
    rows = captions.tolist()
    inputs, targets = [row[:-1] for row in rows], [row[1:] for row in rows]
    return inputs, targets, [int(n) - 1 for n in caption_lengths]
""",
    ],
    "04.4": [
        """def tie(embedding, fc):
    del fc.weight
    fc.register_parameter("weight", embedding.weight)
    return fc
""",
    ],
}
