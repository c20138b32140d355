"""The decoder, with packed sequences.

Chapter 04 of the book, notebooks/04_decoder.ipynb, explains this module and
generates it: edit the chapter, not this file, then run `make export`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from captionlib.attention import Attention
from captionlib.data import Vocabulary
from captionlib.encoder import Encoder
from captionlib.io.files import (
    InputError,
    atomic_folder,
    package_folder,
    read_json,
    write_json,
)

__all__ = [
    "CaptionModel",
    "DecoderOutput",
    "DecoderWithAttention",
    "Grid",
    "LoopLinear",
    "ModelConfig",
    "State",
    "read_glove",
    "versions",
]


class Grid(NamedTuple):
    """What the decoder needs of its images, computed once and shared by all steps and beams."""

    encoder_out: Tensor  # (B, P, D) annotation vectors
    projected: Tensor  # (B, P, A), their projection by the attention layer

    def select(self, images: Tensor) -> "Grid":
        """The grids of some images, named by their row numbers (N,)."""
        # index_select, for its gradient sums in one order; indexing by [] sums in any.
        return Grid(*(tensor.index_select(0, images) for tensor in self))


class State(NamedTuple):
    """The LSTM's memory, one row a caption."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)

    def select(self, rows: Tensor) -> "State":
        """The states of some rows (N,)."""
        return State(*(tensor.index_select(0, rows) for tensor in self))


class DecoderOutput(NamedTuple):
    """What a teacher-forced pass gives. `pad_packed_sequence` restores the caller's order."""

    logits: PackedSequence  # data (tokens, V), before softmax
    targets: PackedSequence  # data (tokens,) int64, the words to be predicted
    alphas: Tensor  # (N, max length - 1, P), the caller's order, zero past a caption's end


class _Gather(torch.autograd.Function):
    """A weight and bias unchanged; their gradients, one product over all steps."""

    @staticmethod
    def forward(ctx, weight, bias, steps):
        ctx.steps = steps
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, *_):
        inputs, gradients = (
            torch.cat(tensors) for tensors in zip(*ctx.steps, strict=True)
        )
        ctx.steps.clear()
        return gradients.T @ inputs, gradients.sum(dim=0), None


class _Step(torch.autograd.Function):
    """`F.linear` that leaves its weight's gradient to `_Gather`, which autograd runs last."""

    @staticmethod
    def forward(ctx, inputs, weight, bias, steps):
        ctx.save_for_backward(inputs, weight)
        ctx.steps = steps
        return F.linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        ctx.steps.append((inputs, gradient))
        return gradient @ weight, None, None, None


def _as_autocast_wants(tensor: Tensor) -> Tensor:
    """Cast once, before a loop: autocast itself would cast at every step, all but parameters."""
    device = tensor.device.type
    if not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


class LoopLinear:
    """`F.linear` for weights used at every step of a loop: same numbers, gradients summed once."""

    def __init__(self):
        self._gathered: dict[int, tuple] = {}

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Inputs (N, in) to (N, out), under autocast too; `weight` (out, in), `bias` (out,)."""
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return F.linear(inputs, weight, bias)
        if id(weight) not in self._gathered:
            steps: list[tuple[Tensor, Tensor]] = []
            pair = (_as_autocast_wants(tensor) for tensor in (weight, bias))
            self._gathered[id(weight)] = (*_Gather.apply(*pair, steps), steps)
        weight, bias, steps = self._gathered[id(weight)]
        return _Step.apply(inputs.to(weight.dtype), weight, bias, steps)


class DecoderWithAttention(nn.Module):
    """An LSTM that looks at the image before every word.

    Kept from the original tutorial, against the paper: ReLU in the attention, a vector gate
    where the paper's is a scalar, and no deep output layer (the paper's equation 7). With equal
    weights, logits and alphas are the original's; so are the parameters' names.

    Source: Xu et al. 2015 (arXiv:1502.03044), sections 3.1.2 and 4.2.
    """

    def __init__(
        self,
        attention_dim: int,
        embed_dim: int,
        decoder_dim: int,
        vocab_size: int,
        encoder_dim: int = 2048,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.decode_step = nn.LSTMCell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.fc.weight, -0.1, 0.1)
        nn.init.zeros_(self.fc.bias)

    def grid(self, encoder_out: Tensor) -> Grid:
        """Flatten (B, height, width, D) to (B, P, D) if need be, and project it once."""
        if encoder_out.dim() == 4:
            encoder_out = encoder_out.flatten(1, 2)
        encoder_out = _as_autocast_wants(encoder_out)
        return Grid(encoder_out, self.attention.project(encoder_out))

    def init_state(self, grid: Grid) -> State:
        """The first state (B, H) of each image's caption, from its mean annotation vector."""
        mean = grid.encoder_out.mean(dim=1)
        return State(self.init_h(mean), self.init_c(mean))

    def step(
        self, words: Tensor, state: State, grid: Grid
    ) -> tuple[State, Tensor]:
        """Read one word and look once.

        Args:
            words: (N,) int64, the previous word of each caption.
            state: (N, H) hidden and cell.
            grid: of B images, N = k * B; caption r belongs to image r // k.

        Returns:
            the new state (N, H), from which `word_logits` scores the next word; alpha (N, P).
        """
        context, alpha = self.attention(
            grid.encoder_out, state.hidden, grid.projected
        )
        return self._read(
            self.embedding(words), state, context, F.linear
        ), alpha

    def _read(
        self,
        embedded: Tensor,
        state: State,
        context: Tensor,
        linear: Callable[..., Tensor],
    ) -> State:
        hidden, cell = state
        beta = torch.sigmoid(
            linear(hidden, self.f_beta.weight, self.f_beta.bias)
        )  # (N, D)
        inputs = torch.cat([embedded, beta * context], dim=1)  # (N, E + D)

        # What nn.LSTMCell does, spelled out so that training can pass its own `linear`.
        lstm = self.decode_step
        gates = linear(inputs, lstm.weight_ih, lstm.bias_ih)
        gates = gates + linear(hidden, lstm.weight_hh, lstm.bias_hh)  # (N, 4H)
        write, keep, new, show = gates.chunk(4, dim=1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(
            new
        )
        return State(torch.sigmoid(show) * torch.tanh(cell), cell)

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Unnormalised scores (N, V) of every word, from hidden states (N, H)."""
        return self.fc(self.dropout(hidden))

    def forward(
        self,
        encoder_out: Tensor,
        captions: Tensor,
        caption_lengths: Tensor,
        fed: Tensor | None = None,
    ) -> DecoderOutput:
        """Score the words of given captions, each step fed the true word before (teacher forcing).

        Args:
            encoder_out: (B, P, D) or (B, height, width, D) float annotation vectors.
            captions: (B * n, T) int64, padded; caption i belongs to image i // n.
            caption_lengths: (B * n,) int64, counting `<start>` and `<end>`, in any order.
            fed: (B * n, T) int64, the words fed in where they are not the captions' own.

        Returns:
            A `DecoderOutput` of sum(caption_lengths - 1) tokens.

        Raises:
            ValueError: if captions don't come in equal numbers an image, a length is below 2 or
                above T, or the lengths don't match the captions.
        """
        N, T = captions.shape
        n, rest = divmod(N, len(encoder_out))
        if rest or n == 0:
            raise ValueError(
                f"expected a multiple of {len(encoder_out)} captions, got {N}"
            )
        lengths = caption_lengths.cpu()  # packing wants them there
        if lengths.shape != (N,) or lengths.min() < 2 or lengths.max() > T:
            raise ValueError(
                f"expected {N} lengths from 2 to {T}, got {lengths.tolist()}"
            )

        targets = pack_padded_sequence(
            captions[:, 1:], lengths - 1, batch_first=True, enforce_sorted=False
        )
        order = targets.sorted_indices
        # Looked up once: a look-up in every step would sum a gradient of V rows in every step.
        embedded = self.embedding(
            (captions if fed is None else fed)[order]
        )  # (N, T, E)
        grid = self.grid(encoder_out)
        state = self.init_state(grid).select(order // n)
        # Images are sorted, too, by their longest captions; n rows each, their captions' `places`.
        longest, images = lengths.view(-1, n).amax(dim=1).sort(descending=True)
        images = images.to(order.device)
        grid = grid.select(images)
        places = images.argsort()[order // n] * n + order % n  # (N,)

        linear = LoopLinear()
        hiddens, alphas = [], []
        for t, running in enumerate(targets.batch_sizes.tolist()):
            looking = int((longest - 1 > t).sum())
            if looking < len(
                grid.projected
            ):  # all captions of some images have ended
                grid = Grid(*(tensor[:looking] for tensor in grid))
            if running < len(
                state.hidden
            ):  # some captions have ended: keep the first rows
                state = State(*(tensor[:running] for tensor in state))
            # Attention sees n rows an image; those of captions that have ended are zeros, dropped.
            place = places[:running]
            hidden = state.hidden.new_zeros(looking * n, state.hidden.shape[1])
            hidden = hidden.index_copy(0, place, state.hidden)
            seen = self.attention(grid.encoder_out, hidden, grid.projected)
            context, alpha = (tensor.index_select(0, place) for tensor in seen)
            state = self._read(embedded[:running, t], state, context, linear)
            hiddens.append(state.hidden)
            alphas.append(alpha)

        def packed(steps: Tensor) -> PackedSequence:
            return targets._replace(data=steps)

        # One product for the vocabulary: nothing in the loop waited for it.
        logits = packed(self.word_logits(torch.cat(hiddens)))
        padded_alphas, _ = pad_packed_sequence(
            packed(torch.cat(alphas)), batch_first=True
        )
        return DecoderOutput(logits, targets, padded_alphas)

    def load_pretrained_embeddings(self, embeddings: Tensor) -> None:
        """Copy word vectors (V, E), in the word map's order, into the embedding.

        Raises:
            ValueError: if the shape is not (V, E).
        """
        if embeddings.shape != self.embedding.weight.shape:
            expected = tuple(self.embedding.weight.shape)
            raise ValueError(
                f"expected embeddings {expected}, got {tuple(embeddings.shape)}"
            )
        with torch.no_grad():
            self.embedding.weight.copy_(embeddings)

    def fine_tune_embeddings(self, on: bool = True) -> None:
        """Let training change the word vectors, or hold them where they are."""
        self.embedding.weight.requires_grad_(on)


def read_glove(
    path: str | Path, word_map: dict[str, int]
) -> tuple[Tensor, list[str]]:
    """Read word vectors in GloVe's text format, in the word map's order.

    Args:
        path: a text file, each line a word and its E numbers, separated by spaces.
        word_map: word to row number, covering 0 to V - 1.

    Returns:
        embeddings (V, E) float32; the words that were found. The others are drawn from a normal
        distribution with the found vectors' mean and standard deviation in each dimension,
        from a generator of their own, always the same.

    Raises:
        InputError: if the file is missing, is not in the format, or knows none of the words.
    """
    vectors: dict[str, list[float]] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip().split(" ")
                if number == 1:
                    size = len(values)
                if len(values) != size or size == 0:
                    raise ValueError
                if word in word_map:
                    vectors[word] = [float(value) for value in values]
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; check the path of the word vectors"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError):
        raise InputError(
            f"{path}: is not a file of word vectors; each line must be a word and its numbers"
        ) from None
    if not vectors:
        raise InputError(
            f"{path}: knows none of the vocabulary's words; is it the right language?"
        )
    found = torch.tensor(list(vectors.values()))  # (found, E)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(word_map), found.shape[1], generator=generator)
    embeddings = found.mean(dim=0) + found.std(dim=0, correction=0) * noise
    rows = torch.tensor([word_map[word] for word in vectors])
    embeddings[rows] = found
    return embeddings, list(vectors)


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a caption model. The defaults train on a laptop."""

    backbone: str = "tf_efficientnet_lite0"  # see captionlib.encoder
    grid_size: int | None = (
        None  # None: the backbone's own grid; the original stretches it to 14
    )
    image_size: int | None = (
        None  # stretch images to this many pixels a side before encoding
    )
    feature_dim: int | None = (
        None  # learn to shorten the annotation vectors to this many numbers
    )
    attention_dim: int = 512
    embed_dim: int = 512
    decoder_dim: int = 512
    dropout: float = 0.5  # on the hidden state, before the vocabulary layer
    feature_dropout: float = 0.0  # on the annotation vectors, in training

    def __post_init__(self):
        for name in (
            "feature_dim",
            "attention_dim",
            "embed_dim",
            "decoder_dim",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("dropout", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be in [0, 1), got {getattr(self, name)}"
                )


def versions() -> dict[str, str]:
    """The versions that a result depends on, to be stored beside it."""
    names = (
        "captionlib",
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pillow",
        "h5py",
    )
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except (
            PackageNotFoundError
        ):  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


class CaptionModel(nn.Module):
    """Encoder, decoder and vocabulary: an image in, the logits of its captions out.

    Attributes:
        search: settings of `captionlib.beam_search.SearchConfig` that go with this model.
        metrics: what was measured on it, with data set, split and seed.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        encoder: Encoder | None = None,
    ):
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        # An encoder of one's own, or one that training changed, is saved with the model.
        self.own_encoder = encoder is not None
        self.encoder = encoder or Encoder(
            config.backbone,
            grid_size=config.grid_size,
            image_size=config.image_size,
        )
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        dim, shorter = self.encoder.encoder_dim, config.feature_dim
        self.shorten = nn.Identity()
        if shorter is not None:
            self.shorten = nn.Sequential(
                nn.Linear(dim, shorter),
                nn.ReLU(),
                nn.Dropout(config.feature_dropout),
            )
        self.decoder = DecoderWithAttention(
            config.attention_dim,
            config.embed_dim,
            config.decoder_dim,
            len(vocabulary),
            encoder_dim=shorter or dim,
            dropout=config.dropout,
        )
        self.search: dict = {}
        self.metrics: dict = {}

    def fine_tune_encoder(self, on: bool = True) -> None:
        """Let training change the encoder's blocks 2 to 4, or freeze them."""
        self.encoder.fine_tune(on)
        self.own_encoder = self.own_encoder or on

    def encode(self, images: Tensor) -> Tensor:
        """Annotation vectors of `images`, as the decoder wants them.

        Args:
            images: (B, 3, height, width) uint8; or what the encoder made of them before, float
                (B, P, D).

        Returns:
            (B, height, width, D) or (B, P, D) float; D is `feature_dim` where that is set. In
            training mode some of their numbers are dropped.
        """
        if images.dtype == torch.uint8:
            vectors = self.encoder(self.encoder.normalise(images))
        else:
            vectors = images.float()
        return self.shorten(self.feature_dropout(vectors))

    def forward(
        self, images: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> DecoderOutput:
        """Teacher-forced logits; `images` as `encode` takes them, the rest as the decoder does."""
        return self.decoder(self.encode(images), captions, caption_lengths)

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the model to `folder`, whole or not at all.

        Weights of an encoder that comes with an installed package, unchanged, are not repeated.

        Args:
            folder: replaced if it exists.
            half: store the weights in float16, half the size; they are loaded as float32.
        """
        with atomic_folder(folder) as temporary:
            self.write_files(temporary, half=half)

    def write_files(self, folder: Path, *, half: bool = False) -> None:
        """The files of `save`, into an existing folder, one after another."""
        own = self.own_encoder or not self.encoder.packaged
        weights = {
            name: (
                tensor.half() if half and tensor.is_floating_point() else tensor
            ).contiguous()
            for name, tensor in self.state_dict().items()
            if own or not name.startswith("encoder.")
        }
        config = {
            "format": 1,
            "model": asdict(self.config),
            "encoder_weights": "saved" if own else "packaged",
            "search": self.search,
            "metrics": self.metrics,
            "versions": versions(),
        }
        # save_file would make a file that its owner alone can read.
        (folder / "model.safetensors").write_bytes(save(weights))
        write_json(folder / "config.json", config, indent=1)
        self.vocabulary.save(folder / "vocabulary.json")

    @classmethod
    def load(cls, folder: str | Path) -> "CaptionModel":
        """Read a model that `save` wrote; in eval mode, on the CPU.

        Args:
            folder: its folder, a training's folder (its `best` is taken), or the name of a
                packaged model, such as "toy".

        Raises:
            InputError: if the folder holds no model, or one that can't be read.
        """
        folder = package_folder(folder)
        stored = read_json(folder / "config.json")
        try:
            config = ModelConfig(**stored["model"])
            own = stored["encoder_weights"] == "saved"
            encoder = None
            if own:
                encoder = Encoder(
                    config.backbone,
                    grid_size=config.grid_size,
                    image_size=config.image_size,
                    pretrained=False,
                )
            model = cls(
                config, Vocabulary.load(folder / "vocabulary.json"), encoder
            )
            weights = load_file(folder / "model.safetensors")
            missing, unexpected = model.load_state_dict(weights, strict=False)
            if unexpected or any(
                own or not name.startswith("encoder.") for name in missing
            ):
                raise KeyError("weights and configuration disagree")
            model.search, model.metrics = stored["search"], stored["metrics"]
        except (
            KeyError,
            TypeError,
            RuntimeError,
            OSError,
            SafetensorError,
        ) as error:
            reason = (
                str(error).splitlines()[0]
                if str(error)
                else type(error).__name__
            )
            raise InputError(
                f"{folder}: can't be read as a captioner ({reason})"
            ) from error
        return model.eval()
