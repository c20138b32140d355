"""The ONNX graphs of a captioner: its encoder, and one step of its decoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import compress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from captionlib.attention import Attention
from captionlib.io.files import InputError
from captionlib.io.images import IMAGE_SIZE
from captionlib.model.attention import BlockwiseAttention

__all__ = ["write_graphs"]

OPSET = 20
PER_IMAGE = {0: Dim("images")}  # axes of any size
PER_ROW = {**PER_IMAGE, 1: Dim("rows")}
TOLERANCE = 1e-3  # rounding stays far below
TRIED = [(1, 1), (3, 2)]  # images, and rows for each; traced with (2, 3)
CURE = "update torch and onnxscript, or export one with another backbone"


@torch.no_grad()
def write_graphs(model: nn.Module, folder: Path) -> float:
    """Write encoder.onnx and step.onnx, for any number of images and rows.

    encoder.onnx maps images (B, 3, 256, 256) uint8 to the decoder's state
    before the first word, of one row per image. step.onnx maps words (B, k)
    int64, k rows per image, and a state to log_probs (B, k, V), alpha
    (B, k, P) and what has changed in the state, such as next_hidden.

    The state's tensors are (B, k, ...) if they belong to rows, as hidden and
    cell do, and (B, ...) if they belong to images, as keys and values do.

    Args:
        model: in eval mode, on the CPU; stays as it is. Has `vocabulary`,
            `encode`, and a `decoder` with `begin` and `step`.
        folder: exists.

    Returns:
        the largest difference between the graphs' numbers and the model's, on
        noise; relative where they are above 1.

    Raises:
        InputError: if torch.onnx can't write the model, or what it writes
            computes something else.
    """
    model = copy.deepcopy(model)
    _vectorise_attention(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        begin = Begin(model)
        return max(
            _write(begin, folder / "encoder.onnx"),
            _write(Step(begin), folder / "step.onnx"),
        )


class Begin(nn.Module):
    """Images to a state.

    Attributes:
        inputs: the arguments' names, with their axes of any size.
        outputs: the results' names.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        # Bound beforehand: layers reached while torch.export traces are
        # stand-ins, and an ensemble could not tell its encoders apart.
        self.model, self.encode = model, model.encode
        self.decoder_begin = model.decoder.begin
        state = self.decoder_begin(self.encode(*self.example(2)))
        twice = state.select(torch.arange(2).repeat_interleave(2))
        self.per_row = [len(tensor) == 4 for tensor in _tensors(twice)]
        self.state = state
        self.inputs = {"images": PER_IMAGE}
        self.outputs = _names(state)

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        state = self.decoder_begin(self.encode(*images))
        pairs = zip(_tensors(state), self.per_row, strict=True)
        return tuple(each.unsqueeze(1) if row else each for each, row in pairs)

    def example(self, images: int, rows: int = 1) -> tuple[Tensor, ...]:
        """Arguments for a number of images."""
        size = (images, 3, IMAGE_SIZE, IMAGE_SIZE)
        return (torch.randint(256, size, dtype=torch.uint8),)


class Step(nn.Module):
    """Words and a state to scores, maps and what has changed in the state.

    Attributes are as for `Begin`.
    """

    def __init__(self, begin: Begin):
        super().__init__()
        self.begin, self.decoder_step = begin, begin.model.decoder.step
        axes = [PER_ROW if row else PER_IMAGE for row in begin.per_row]
        self.inputs = {"words": PER_ROW}
        self.inputs |= zip(begin.outputs, axes, strict=True)
        changed = compress(begin.outputs, begin.per_row)
        self.outputs = ["log_probs", "alpha", *(f"next_{n}" for n in changed)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        (words, *tensors), per_row = tensors, self.begin.per_row
        pairs = zip(tensors, per_row, strict=True)
        flat = [each.flatten(0, 1) if row else each for each, row in pairs]
        state = _filled(self.begin.state, iter(flat))
        logits, alpha, state = self.decoder_step(words.flatten(), state)
        changed = compress(_tensors(state), per_row)
        results = (logits.log_softmax(dim=1), alpha, *changed)
        return tuple(each.unflatten(0, words.shape) for each in results)

    def example(self, images: int, rows: int) -> tuple[Tensor, ...]:
        """Arguments for a number of images, and of rows for each."""
        begun = self.begin(*self.begin.example(images))
        pairs = zip(begun, self.begin.per_row, strict=True)
        state = [
            torch.randn(images, rows, *each.shape[2:]) if row else each
            for each, row in pairs
        ]
        words = len(self.begin.model.vocabulary)
        return torch.randint(words, (images, rows)), *state


def _write(graph: Begin | Step, path: Path) -> float:
    """Write a graph, and compare it with PyTorch; returns the difference."""
    try:
        torch.onnx.export(
            graph.eval(),
            graph.example(2, 3),
            path,
            input_names=list(graph.inputs),
            output_names=graph.outputs,
            dynamic_shapes=(tuple(graph.inputs.values()),),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        difference = _difference(graph, path)
    except OSError:  # no room
        raise
    except Exception as error:  # whatever a layer leads to
        cause = error.__cause__ or error  # torch.onnx wraps it in advice
        reason = str(cause).strip().split("\n")[0][:120]
        raise InputError(
            f"{path.name} can't be written ({reason}); {CURE}"
        ) from error
    if not difference < TOLERANCE:
        raise InputError(
            f"{path.name} differs from the model by {difference:.1e}; {CURE}"
        )
    return difference


def _difference(graph: Begin | Step, path: Path) -> float:
    """The largest difference of any number, relative if it is above 1."""
    import onnxruntime

    session, found = onnxruntime.InferenceSession(str(path)), []
    for sizes in TRIED:
        example = graph.example(*sizes)
        arrays = [tensor.numpy() for tensor in example]
        results = session.run(
            None, dict(zip(graph.inputs, arrays, strict=True))
        )
        for ours, theirs in zip(results, graph(*example), strict=True):
            off = (torch.from_numpy(ours) - theirs) / theirs.abs().clamp(min=1)
            found.append(off.abs().max())
    return float(torch.stack(found).max())


def _vectorise_attention(model: nn.Module) -> None:
    """Exchange each `Attention` in a model."""
    for module in list(model.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, Attention):
                setattr(module, name, VectorisedAttention(layer))


class VectorisedAttention(BlockwiseAttention):
    """`Attention`, asked for one row of one image.

    torch.export can't follow Python's arithmetic on sizes that are free, such
    as the number of rows per image. Here Python sees ones, and `vmap` does the
    rest.
    """

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in `Attention.forward`."""
        attend = super().forward

        def look(*one: Tensor) -> tuple[Tensor, Tensor]:
            context, alpha = attend(*(tensor.unsqueeze(0) for tensor in one))
            return context.squeeze(0), alpha.squeeze(0)

        rows = hidden.unflatten(0, (keys.shape[0], -1))  # (B, n, H)
        of_image = torch.vmap(look, in_dims=(0, None, None))
        context, alpha = torch.vmap(of_image)(rows, keys, values)
        return context.flatten(0, 1), alpha.flatten(0, 1)


def _names(state, name: str = "") -> list[str]:
    """A name for each tensor in nested (named) tuples and lists."""
    if isinstance(state, Tensor):
        return [name]
    fields = getattr(state, "_fields", range(len(state)))
    names = [f"{name}_{field}".lstrip("_") for field in fields]
    return [
        each
        for pair in zip(state, names, strict=True)
        for each in _names(*pair)
    ]


def _tensors(state) -> list[Tensor]:
    """The tensors, in the order of their names."""
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in _tensors(part)]


def _filled(state, tensors: Iterator[Tensor]):
    """A state of the same form, with these tensors."""
    if isinstance(state, Tensor):
        return next(tensors)
    parts = [_filled(part, tensors) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else parts
