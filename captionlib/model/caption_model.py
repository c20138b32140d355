"""Encoder, decoder and vocabulary as one module, and its folder on disk.

The folder holds weights in safetensors and the rest in JSON, never a pickle.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from captionlib.config import ModelConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderOutput, DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.io.files import (
    InputError,
    atomic_folder,
    package_folder,
    read_json,
    write_json,
)
from captionlib.io.versions import versions
from captionlib.model.attention import BlockwiseAttention

__all__ = ["CaptionModel"]

# The kind of decoder, stored with the model: chapter 04's.
DECODER = "soft_attention"
TRAINED_ON = "trained_on.safetensors"


class CaptionModel(nn.Module):
    """Encoder, decoder and vocabulary: from images to the logits of captions.

    Attributes:
        search: settings of `DecodingConfig` that go with this model.
        metrics: the model's scores, with data set, split and seed.
        trained_on: a number for each image of its training, from
            `io.identity.of_pixels`; empty if they are not known.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        encoder: Encoder | None = None,
    ):
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        # A given encoder, or one that training changed, is saved with the
        # model.
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
        self.decoder.attention = BlockwiseAttention(self.decoder.attention)
        self.search: dict = {}
        self.metrics: dict = {}
        self.trained_on: set[int] = set()

    def fine_tune_encoder(self, on: bool = True) -> None:
        """Let training change the encoder's later stages, or freeze them."""
        self.encoder.fine_tune(on)
        self.own_encoder = self.own_encoder or on

    def encode(self, images: Tensor) -> Tensor:
        """The annotation vectors of `images`, as the decoder takes them.

        Args:
            images: (B, 3, height, width) uint8; or images that the encoder has
                encoded, (B, P, D) float.

        Returns:
            (B, height, width, D) or (B, P, D) float; D is `feature_dim` if that
            is set. In training mode, dropout applies.
        """
        if images.dtype == torch.uint8:
            vectors = self.encoder(self.encoder.normalise(images))
        else:
            vectors = images.float()
        return self.shorten(self.feature_dropout(vectors))

    def forward(
        self, images: Tensor, captions: Tensor, caption_lengths: Tensor
    ) -> DecoderOutput:
        """Teacher-forced logits; arguments as for `encode` and the decoder."""
        return self.decoder(self.encode(images), captions, caption_lengths)

    @torch.no_grad()
    def add_words(self, vocabulary: Vocabulary) -> None:
        """Take a longer vocabulary, whose first words are the model's own.

        The rows of known words keep their bits. A new word starts as the mean
        of the known ones: a vector that the LSTM can read, and a logit that is
        a rare word's. If there are many, their bias is lowered until all
        together are as likely as a fiftieth of the known words, so that
        searches go on finding what they found. They are learned all the same:
        where one is the target, the gradient of its logit is p - 1, however
        small p is. But a low start takes more steps, so few are not lowered.

        Raises:
            InputError: if a word of the model has another id.
        """
        V, decoder = len(self.vocabulary), self.decoder
        if vocabulary.words[:V] != self.vocabulary.words:
            raise InputError("a vocabulary has other ids for the model's words")
        self.vocabulary, new = vocabulary, len(vocabulary) - V
        if not new:
            return
        words, fc = decoder.embedding, decoder.fc
        device = fc.weight.device
        decoder.embedding = nn.Embedding(
            V + new, words.embedding_dim, device=device
        )
        decoder.fc = nn.Linear(fc.in_features, V + new, device=device)
        for grown, given in (
            (decoder.embedding.weight, words.weight),
            (decoder.fc.weight, fc.weight),
            (decoder.fc.bias, fc.bias),
        ):
            grown[:V], grown[V:] = given, given.mean(dim=0)
            grown.requires_grad_(given.requires_grad)
        decoder.fc.bias[V:] -= max(0.0, math.log(50 * new / V))

    def save(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the model to `folder`, whole or not at all.

        The weights of an encoder are left out if they come unchanged from an
        installed package.

        Args:
            folder: replaced if it holds a captioner already.
            half: store the weights in float16, at half the size; `load` returns
                float32.

        Raises:
            InputError: if the folder holds other files.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / "config.json").is_file():
                raise InputError(
                    f"{folder}: holds other files and no captioner; name a new "
                    "folder"
                )
        with atomic_folder(folder) as temporary:
            self.write_files(temporary, half=half)

    def write_files(self, folder: Path, *, half: bool = False) -> None:
        """Write the files of `save` to an existing folder, one by one."""
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
            "decoder": DECODER,
            "model": asdict(self.config),
            "encoder_weights": "saved" if own else "packaged",
            "search": self.search,
            "metrics": self.metrics,
            "versions": versions(),
        }
        # safetensors' save_file makes files that only their owner can read.
        (folder / "model.safetensors").write_bytes(save(weights))
        write_json(folder / "config.json", config, indent=1)
        self.vocabulary.save(folder / "vocabulary.json")
        if self.trained_on:
            images = torch.tensor(sorted(self.trained_on))
            (folder / TRAINED_ON).write_bytes(save({"images": images}))

    @classmethod
    def load(cls, folder: str | Path) -> CaptionModel:
        """Read a model that `save` wrote; in eval mode, on the CPU.

        Args:
            folder: the model's folder, the folder of a training run (whose
                `best` is taken), or the name of a packaged model, such as
                "toy".

        Raises:
            InputError: if the folder holds no model, or one that can't be read.
        """
        folder = package_folder(folder)
        while True:
            before = _written(folder)
            try:
                model = cls._read(folder)
            except InputError:
                if _written(folder) == before:
                    raise
            else:
                if _written(folder) == before:
                    return model.eval()
            # A training has replaced it meanwhile: not half of each.

    @classmethod
    def _read(cls, folder: Path) -> CaptionModel:
        file = folder / "config.json"
        stored = read_json(file)
        try:
            config = ModelConfig(**stored["model"])
            search, metrics = stored["search"], stored["metrics"]
            own = stored["encoder_weights"] == "saved"
            encoder = None
            if own:
                encoder = Encoder(
                    config.backbone,
                    grid_size=config.grid_size,
                    image_size=config.image_size,
                    pretrained=False,
                )
            file = folder / "vocabulary.json"
            model = cls(config, Vocabulary.load(file), encoder)
            file = folder / "model.safetensors"
            weights = load_file(file)
            missing, unexpected = model.load_state_dict(weights, strict=False)
            if unexpected or any(
                own or not name.startswith("encoder.") for name in missing
            ):
                raise KeyError("weights and configuration disagree")
            model.search, model.metrics = search, metrics
            file = folder / TRAINED_ON
            if file.exists():
                model.trained_on = set(load_file(file)["images"].tolist())
        except InputError:
            raise
        except (
            KeyError,
            TypeError,
            ValueError,
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
                f"{file}: is damaged, so {folder} can't be read as a captioner "
                f"({reason}); put a copy back or train again"
            ) from error
        return model


def _written(folder: Path) -> tuple | None:
    """What changes if a folder is replaced; None while it is gone."""
    try:
        about = folder.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns
