"""Encoder, decoder and vocabulary as one module: a captioner."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from captionlib.config import ModelConfig
from captionlib.data import Vocabulary
from captionlib.decoder import DecoderOutput, DecoderWithAttention
from captionlib.encoder import Encoder
from captionlib.io.files import InputError, package_folder, read_json
from captionlib.model.attention import BlockwiseAttention
from captionlib.model.ensemble import ENSEMBLE, CaptionEnsemble
from captionlib.model.folder import (
    TRAINED_ON,
    Stored,
    read_weights,
    under,
    written,
)
from captionlib.transformer import PrefixDecoder, TransformerDecoder

__all__ = ["CaptionModel", "require_lstm"]

# The kind of decoder, stored with the model: chapter 04's.
DECODER = "soft_attention"
# Chapter 15's.
TRANSFORMERS = {"transformer": TransformerDecoder, "prefix": PrefixDecoder}


class CaptionModel(nn.Module, Stored):
    """Encoder, decoder and vocabulary: from images to the logits of captions."""

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

    @property
    def shape(self) -> dict:
        """The settings of `ModelConfig` that it was built with."""
        return asdict(self.config)

    def describe(self) -> dict:
        """As `Stored.describe`."""
        about = {
            "decoder": DECODER,
            "model": self.shape,
            "encoder_weights": "saved" if self._keeps_encoder else "packaged",
        }
        for name, kind in TRANSFORMERS.items():
            if type(self.decoder) is kind:
                about |= {"decoder": name, "decoder_shape": self.decoder.shape}
        return about

    def weights(self) -> dict[str, Tensor]:
        """As `Stored.weights`."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if self._keeps_encoder or not name.startswith("encoder.")
        }

    @property
    def _keeps_encoder(self) -> bool:
        return self.own_encoder or not self.encoder.packaged

    @classmethod
    def load(
        cls, folder: str | Path, member: int | None = None
    ) -> CaptionModel | CaptionEnsemble:
        """Read a model that `save` wrote; in eval mode, on the CPU.

        Args:
            folder: the model's folder, the folder of a training run (whose
                `best` is taken), or the name of a packaged model, such as
                "toy".
            member: of an ensemble, read only this captioner; a folder with one
                captioner counts as an ensemble of one. None reads all.

        Raises:
            InputError: if the folder holds no model, or one that can't be read.
        """
        folder = package_folder(folder)
        while True:
            before = written(folder)
            try:
                model = cls._read(folder, member)
            except InputError:
                if written(folder) == before:
                    raise
            else:
                if written(folder) == before:
                    return model.eval()
            # A training has replaced it meanwhile: not half of each.

    @classmethod
    def _read(
        cls, folder: Path, member: int | None
    ) -> CaptionModel | CaptionEnsemble:
        file = folder / "config.json"
        stored = read_json(file)
        try:
            shapes = stored.get("members", [stored])
            if member is not None:
                shapes = [shapes[member]]
            search, metrics = stored["search"], stored["metrics"]
            file = folder / "vocabulary.json"
            vocabulary = Vocabulary.load(file)
            file = folder / "model.safetensors"
            weights = read_weights(file)
            models, encoders = [], {}
            for shape in shapes:
                model = cls._build(shape, vocabulary, weights, encoders)
                models.append(model)
            if stored.get("decoder") == ENSEMBLE and member is None:
                model = CaptionEnsemble(models)
            model.search, model.metrics = search, metrics
            file = folder / TRAINED_ON
            if file.exists():
                model.trained_on = set(load_file(file)["images"].tolist())
        except InputError:
            raise
        except (
            LookupError,
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

    @classmethod
    def _build(
        cls,
        stored: dict,
        vocabulary: Vocabulary,
        weights: dict[str, Tensor],
        encoders: dict[str, Encoder],
    ) -> CaptionModel:
        """A captioner from what is `stored` of it.

        Args:
            stored: its description. In an ensemble, it names the prefixes of
                its tensors in `weights`, and of its encoder's.
            encoders: those built so far, by prefix, which it may share.
        """
        config = ModelConfig(**stored["model"])
        own = stored["encoder_weights"] == "saved"
        prefix = stored.get("encoder", "encoder.")
        encoder = encoders.get(prefix)
        if own and encoder is None:
            encoder = Encoder(
                config.backbone,
                grid_size=config.grid_size,
                image_size=config.image_size,
                pretrained=False,
            )
            encoder.load_state_dict(under(prefix, weights))
        model = cls(config, vocabulary, encoder)
        if (kind := stored.get("decoder", DECODER)) != DECODER:
            dim = config.feature_dim or model.encoder.encoder_dim
            shape = stored["decoder_shape"]
            model.decoder = TRANSFORMERS[kind](len(vocabulary), dim, **shape)
        model.own_encoder = own
        encoders[prefix] = model.encoder
        rest = under(stored.get("weights", ""), weights)
        missing, unexpected = model.load_state_dict(
            {k: v for k, v in rest.items() if not k.startswith("encoder.")},
            strict=False,
        )
        if unexpected or any(not k.startswith("encoder.") for k in missing):
            raise KeyError("weights and configuration disagree")
        return model


def require_lstm(model: CaptionModel | CaptionEnsemble, what: str) -> None:
    """Check that `what` can be done with a captioner's decoders.

    Raises:
        InputError: if one of them is not chapter 04's.
    """
    for member in getattr(model, "members", [model]):
        if not isinstance(member.decoder, DecoderWithAttention):
            raise InputError(
                f"its decoder is a {type(member.decoder).__name__}, and {what} "
                "knows the LSTM with attention only; train one of these"
            )
