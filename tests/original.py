"""Modules built as the original tutorial's, for checkpoints to convert: equal layers, equal names.

Tests load this file under the name `models`, which is what such checkpoints call their classes.
"""

import torch
from torch import nn


class Encoder(nn.Module):
    """A ResNet without its last two layers, and a pooling that fixes the grid."""

    def __init__(self, resnet: nn.Module, encoded_image_size: int = 14):
        super().__init__()
        self.enc_image_size = encoded_image_size
        self.resnet = nn.Sequential(*list(resnet.children())[:-2])
        self.adaptive_pool = nn.AdaptiveAvgPool2d(
            (encoded_image_size, encoded_image_size)
        )

    def forward(self, images):
        """Normalised images (B, 3, 256, 256) to grids (B, 14, 14, D)."""
        return self.adaptive_pool(self.resnet(images)).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Which pixels to look at."""

    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)
        self.relu = nn.ReLU()
        self.softmax = nn.Softmax(dim=1)

    def forward(self, encoder_out, hidden):
        """Pixels (B, P, D) and states (B, H) to contexts (B, D) and weights (B, P)."""
        both = self.encoder_att(encoder_out) + self.decoder_att(hidden)[:, None]
        alpha = self.softmax(self.full_att(self.relu(both))[:, :, 0])
        return torch.einsum("bp,bpd->bd", alpha, encoder_out), alpha


class DecoderWithAttention(nn.Module):
    """The LSTM that writes."""

    def __init__(
        self,
        attention_dim,
        embed_dim,
        decoder_dim,
        vocab_size,
        encoder_dim,
        dropout=0.5,
    ):
        super().__init__()
        self.encoder_dim, self.vocab_size = encoder_dim, vocab_size
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(p=dropout)
        self.decode_step = nn.LSTMCell(
            embed_dim + encoder_dim, decoder_dim, bias=True
        )
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.sigmoid = nn.Sigmoid()
        self.fc = nn.Linear(decoder_dim, vocab_size)

    def start(self, encoder_out):
        """The first state, from pixels (B, P, D)."""
        mean = encoder_out.mean(dim=1)
        return self.init_h(mean), self.init_c(mean)

    def step(self, words, state, encoder_out):
        """One word read (B,): the next words' logits (B, V), the new state, where it looked."""
        context, alpha = self.attention(encoder_out, state[0])
        gated = self.sigmoid(self.f_beta(state[0])) * context
        state = self.decode_step(
            torch.cat([self.embedding(words), gated], dim=1), state
        )
        return self.fc(self.dropout(state[0])), state, alpha
