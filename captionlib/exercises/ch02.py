"""Chapter 02, the encoder."""

import torch
from torch import nn

from captionlib.exercises.answers import (
    Wrong,
    also,
    call,
    compare,
    describe,
    number,
    quantity,
    tensor,
)


def exercise_1(receptive_field) -> str:
    """How far does a cell see?"""
    what = "the receptive field"

    def run(layers):
        return number(call(receptive_field, layers), what, whole=True)

    compare(
        run([(3, 1)]),
        3,
        [
            (
                2,
                "one kernel of 3 sees 3 pixels, not 2: before any layer the "
                "window is one wide",
            ),
            (
                4,
                "one kernel of 3 sees 3 pixels, not 4: it adds 2 to the one "
                "pixel of the start",
            ),
            (
                1,
                "one kernel of 3 sees 3 pixels, and this says 1: is something "
                "added, or is the return inside the loop?",
            ),
        ],
        what="what a single kernel of 3 sees",
    )
    compare(
        run([(3, 1), (3, 1)]),
        5,
        what="what two kernels of 3 without strides see",
    )
    compare(
        run([(3, 2), (3, 1), (3, 1)]),
        11,
        [
            (
                7,
                "with a stride of 2 in the first layer, the later kernels "
                "reach twice as far",
            ),
            (
                13,
                "a layer's own stride counts for those after it, not for its "
                "own kernel",
            ),
            (
                9,
                "a layer's own stride was applied to its own kernel, and "
                "forgotten by the next",
            ),
        ],
        what="what strides 2, 1, 1 with kernels of 3 see",
    )
    compare(
        run([(7, 2), (3, 2), (3, 1), (3, 2), (3, 1)]),
        43,
        [
            (
                23,
                "strides multiply: after two layers of stride 2, neighbours "
                "are 4 pixels apart",
            ),
            (31, "strides multiply: 2, 4, 8. They don't add up"),
        ],
        what="what kernels 7, 3, 3, 3, 3 with strides 2, 2, 1, 2, 1 see",
    )

    def right(layers):
        width = 1
        for kernel, stride in reversed(layers):
            width = stride * (width - 1) + kernel
        return width

    also(
        receptive_field,
        right,
        ([(1, 2), (3, 3)],),
        ([(5, 1), (2, 2), (3, 1), (1, 1)],),
        ([(11, 4), (3, 2), (5, 1), (3, 2), (3, 1)],),
        what=what,
    )
    return "each halving doubles what a kernel adds."


def exercise_2(vectors, side) -> str:
    """Grids in your head."""
    quantity(
        vectors,
        96,
        [
            (24, "divided by 64: the image is halved five times, by 32 in all"),
            (384, "divided by 16: the image is halved five times, not four"),
            (
                20,
                "8 rows and 12 columns: a grid has as many cells as their "
                "product",
            ),
            (64, "that is the grid of a square image, 8×8; this one is wider"),
            (144, "that is 12×12; the image has fewer rows than columns"),
            (
                196,
                "14×14 is the stretched grid; grid_size=None doesn't stretch",
            ),
            (96 * 1280, "that counts numbers; how many vectors are there?"),
        ],
        what="the number of vectors",
        whole=True,
    )
    side = number(side, "the side", whole=True)
    # A part of 32 pixels makes a cell, too.
    quantity(
        448 if 417 <= side <= 448 else side,
        448,
        [
            (
                224,
                "with 224 pixels the grid would be 7×7: the image is halved "
                "five times",
            ),
            (256, "with 256 pixels the grid is 8×8, and is stretched to 14×14"),
            (14, "that is the grid's side; how many pixels has the image?"),
            (448 * 448, "give the side, not the area"),
        ],
        what="the side",
        tolerance=0,
    )
    said = "a cell for every 32×32 pixels, whatever the image's shape."
    return said if side == 448 else f"{said} (448 is 14 · 32, without a rest.)"


def exercise_3(annotation_vectors) -> str:
    """From maps to annotation vectors."""
    maps = torch.randn(2, 5, 3, 4)
    B, D, height, width = maps.shape
    known = {
        (B, D, height * width): (
            "this is (B, D, P), a map in each row; each row should be a "
            "vector: swap two axes"
        ),
        (B, height, width, D): (
            "the channels are last, and the grid is still a grid: join its two "
            "axes into P"
        ),
        (height * width, B, D): (
            "the images are now the second axis; they should stay the first"
        ),
    }
    got = tensor(
        call(annotation_vectors, maps),
        (B, height * width, D),
        "the result",
        known=known,
    )
    right = maps.permute(0, 2, 3, 1)
    compare(
        got,
        right.reshape(B, -1, D),
        [
            (
                maps.reshape(B, -1, D),
                "the shape is right, the content isn't: reshape only splits "
                "the numbers in the order in which they are stored, so the "
                "first vector holds five pixels of channel 0",
            ),
            (
                right.transpose(1, 2).reshape(B, -1, D),
                "the vectors run down the columns of the grid; they should run "
                "along the rows",
            ),
            (
                maps.flatten(2).flip(2).transpose(1, 2),
                "the vectors come last to first",
            ),
        ],
        otherwise="the vectors are not those of the grid's cells, row by row",
    )
    also(
        annotation_vectors,
        lambda maps: maps.permute(0, 2, 3, 1).reshape(
            len(maps), -1, maps.shape[1]
        ),
        *(
            (torch.randn(*shape),)
            for shape in ((1, 2, 3, 3), (3, 1, 2, 5), (4, 4, 2, 2))
        ),
    )
    return "each vector has one number from every channel, and they come row by row."


def exercise_4(freeze) -> str:
    """Frozen, and still."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3),
        nn.BatchNorm2d(2),
    )
    _check_frozen(freeze, network)
    _check_frozen(freeze, _deep())
    said = "no gradients, and no statistics updated."
    before = _state(network)
    _forward(network.train())
    if _moved(network, before):
        return f"{said} Calling `train()` would undo half of it."
    return f"{said} Not even `train()` undoes it."


def _deep() -> nn.Module:
    """A network with normalisation further down, and in other forms."""
    inner = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
    network = nn.Sequential(
        nn.BatchNorm2d(3, affine=False),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(inner, nn.ReLU())),
        nn.Dropout(0.5),
        nn.BatchNorm2d(4, momentum=None),
        nn.Flatten(2),
        nn.BatchNorm1d(4),
        nn.Unflatten(2, (7, 7, 1)),
        nn.BatchNorm3d(4),
    )
    network.register_parameter("scale", nn.Parameter(torch.ones(1)))
    network.register_buffer("seen", torch.zeros(1))
    return network


def _state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the weights and buffers."""
    return {name: each.clone() for name, each in network.state_dict().items()}


def _moved(network: nn.Module, before: dict) -> str | None:
    """The first weight or buffer that is no longer as before."""
    after = network.state_dict()
    for name, value in before.items():
        if not torch.equal(after[name], value):
            return name
    return None


def _forward(network: nn.Module) -> None:
    """Two forward passes, with different statistics."""
    try:
        network(torch.randn(2, 3, 9, 9))
        network(torch.randn(2, 3, 9, 9) + 3)
    except Exception as error:
        raise Wrong(f"the network no longer runs: {error}") from None


def _check_frozen(freeze, network: nn.Module) -> None:
    """Raise `Wrong` unless the network, which has been trained, stays as it
    is."""
    for value in network.state_dict().values():
        value.copy_(torch.rand(value.shape) + 0.5 + 7 * (not value.ndim))
    before = _state(network)
    frozen = call(freeze, network)
    if not isinstance(frozen, nn.Module):
        raise Wrong(
            f"the network should come back, but this is {describe(frozen)}"
        )
    if frozen is not network:
        raise Wrong("another network came back; freeze the one that was given")
    if gone := sorted(before.keys() - network.state_dict().keys()):
        statistics = "running" in gone[0] or "num_batches" in gone[0]
        raise Wrong(
            f"the network no longer has its {gone[0]}: "
            + (
                "without statistics, it normalises each batch by itself"
                if statistics
                else "freezing takes no layer and no weight away"
            )
        )
    if name := _moved(network, before):
        raise Wrong(
            f"your function itself changes {name}, before any forward pass; "
            "what the network has learned should stay"
        )
    _forward(network)
    loose = [
        name for name, each in network.named_parameters() if each.requires_grad
    ]
    if loose and "requires_grad" in vars(network):
        raise Wrong(
            "`network.requires_grad = False` only hangs a new attribute on the "
            "module, and PyTorch looks at each parameter's own: use the method "
            "with an underscore"
        )
    if names := [name for each in network.parameters() for name in vars(each)]:
        raise Wrong(
            f"`{names[0]}` is a new attribute that you hung on the parameters; "
            "PyTorch looks at `requires_grad`"
        )
    total = len(list(network.parameters()))
    if len(loose) == total:
        raise Wrong(
            "every parameter still requires a gradient"
            + (
                ", and the network is in training mode. (`torch.no_grad()` "
                "lasts only as long as its block)"
                if network.training
                else ": eval() sets the mode, which has nothing to do with gradients"
            )
        )
    if loose:
        raise Wrong(
            f"{len(loose)} of {total} parameters still require a gradient, "
            f"first {loose[0]}"
        )
    if name := _moved(network, before):
        raise Wrong(
            "no gradients, but two forward passes have moved the buffer "
            f"{name}: batch normalisation keeps updating its statistics in "
            "training mode"
        )


def exercise_5(mended) -> str:
    """Two faults in a function that encodes."""
    for B, D, side, brightest in (
        (2, 3, 8, 255),
        (1, 4, 6, 255),
        (3, 2, 10, 255),
        (2, 2, 8, 1),
    ):
        torch.manual_seed(B)
        layer = nn.Conv2d(3, D, 3, stride=2, padding=1)

        def network(images, layer=layer) -> torch.Tensor:
            return layer(images.float())

        pixels = torch.randint(
            brightest + 1, (B, 3, side, side), dtype=torch.uint8
        )
        mean, std = torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.2

        def grid(images, network=network) -> torch.Tensor:
            with torch.no_grad():
                return network(images)

        images = (pixels / 255 - mean) / std
        right = grid(images).flatten(2).mT
        early = grid((pixels - mean) / std / 255)
        got = tensor(
            call(mended, network, pixels, mean, std),
            tuple(right.shape),
            "the grid",
            known={
                (B, D, right.shape[1]): "each cell should have its numbers "
                "together: (B, P, D), and this is (B, D, P)"
            },
        )
        compare(
            got,
            right,
            [
                (
                    early.reshape(right.shape),
                    "nothing has changed: both faults are still there",
                ),
                (
                    early.flatten(2).mT,
                    "the cells are right now; look at the pixels' scale: what "
                    "are `mean` and `std` of?",
                ),
                (
                    grid(images).reshape(right.shape),
                    "the pixels are right now; but `reshape` cuts the numbers in "
                    "the order in which they lie in memory, channel by channel",
                ),
                (
                    grid((pixels - mean) / std).flatten(2).mT,
                    f"the cells are right now; but pixels from 0 to {brightest} "
                    "are not divided by 255, and `mean` and `std` are those of "
                    "pixels between 0 and 1",
                ),
                (
                    grid((pixels - mean) / std).reshape(right.shape),
                    "the pixels are not divided by 255 any more, and the cells "
                    "are as they were",
                ),
                (
                    grid(pixels / 255).flatten(2).mT,
                    "the pixels are no longer normalised",
                ),
            ],
            what="the grid",
        )
    return "neither fault makes an error: both give a grid of the right shape."
