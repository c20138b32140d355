"""Several captioners that write one caption together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captionlib.decoder import State
from captionlib.decoding.ensemble import Ensemble
from captionlib.model.folder import Stored

__all__ = ["ENSEMBLE", "CaptionEnsemble"]

# The kind of decoder, stored with the model.
ENSEMBLE = "ensemble"


class CaptionEnsemble(nn.Module, Stored):
    """Captioners whose word probabilities are averaged, to be used as one.

    Members that share an encoder, the same object, share its work and its room
    on disk.

    Args:
        members: `CaptionModel`s, at least one, with one vocabulary and grids of one size.

    Raises:
        ValueError: if their words differ.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.vocabulary = members[0].vocabulary
        for member in members:
            if member.vocabulary.word_map != self.vocabulary.word_map:
                raise ValueError("expected members with one vocabulary")
        self.search: dict = {}
        self.metrics: dict = {}
        self.trained_on = set().union(*(m.trained_on for m in members))

    @property
    def encoders(self) -> list[nn.Module]:
        """The members' encoders, each once."""
        return list(dict.fromkeys(member.encoder for member in self.members))

    def encode(self, images: Tensor) -> Tensor:
        """The annotation vectors of `images` from all encoders, side by side.

        Args:
            images: (B, 3, height, width) uint8, or what this returned.

        Returns:
            (B, height, width, D) float; D adds up the encoders' lengths.
        """
        if images.dtype != torch.uint8:
            return images.float()
        grids = [
            encoder(encoder.normalise(images)) for encoder in self.encoders
        ]
        return torch.cat(grids, dim=-1)

    @property
    def decoder(self) -> Ensemble:
        """The members' decoders behind the interface of one."""
        places, start = {}, 0
        for encoder in self.encoders:
            places[encoder] = slice(start, start + encoder.encoder_dim)
            start += encoder.encoder_dim
        return Ensemble(
            [Reader(member, places[member.encoder]) for member in self.members]
        )

    @property
    def shape(self) -> dict:
        """The first member's settings, and the number of members."""
        return self.members[0].shape | {"ensemble_of": len(self.members)}

    def describe(self) -> dict:
        """As `Stored.describe`."""
        members = [
            member.describe() | {"weights": own, "encoder": shared}
            for member, own, shared in self._prefixes()
        ]
        return {"decoder": ENSEMBLE, "members": members}

    def weights(self) -> dict[str, Tensor]:
        """As `Stored.weights`; a shared encoder is there once."""
        weights = {}
        for member, own, shared in self._prefixes():
            for name, tensor in member.weights().items():
                part, _, rest = name.partition(".")
                name = shared + rest if part == "encoder" else own + name
                weights[name] = tensor
        return weights

    def _prefixes(self) -> list[tuple[nn.Module, str, str]]:
        """Each member, with the prefix of its tensors and of its encoder's."""
        encoders = self.encoders
        return [
            (
                member,
                f"members.{number}.",
                f"encoders.{encoders.index(member.encoder)}.",
            )
            for number, member in enumerate(self.members)
        ]


class Reader:
    """A member's decoder, which begins from its part of all encoders' grids.

    Args:
        member: its `CaptionModel`.
        part: its encoder's numbers among those of an annotation vector.
    """

    def __init__(self, member: nn.Module, part: slice):
        self.member, self.part = member, part
        self.training = member.decoder.training

    def begin(self, grids: Tensor) -> State:
        """As `DecoderWithAttention.begin`, from `CaptionEnsemble.encode`."""
        return self.member.decoder.begin(
            self.member.encode(grids[..., self.part])
        )

    def step(self, words: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `DecoderWithAttention.step`."""
        return self.member.decoder.step(words, state)
