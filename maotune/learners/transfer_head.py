"""The channel-adjusted transfer head of DePT: a second classifier beside the cosine similarities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAdjustment(nn.Module):
    """scale * x + shift, per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., d) to features (..., d)."""
        return self.scale * features + self.shift


class TransferHead(nn.Module):
    """A linear classifier of image and text features of width d, each adjusted per channel first."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.image, self.text = ChannelAdjustment(width), ChannelAdjustment(width)
        self.linear = nn.Linear(width, classes)

    def scores(self, adjusted: Tensor, rows: Tensor) -> Tensor:
        """Return (B, H) scores of adjusted features (B, d) for the classes in ``rows`` (H,)."""
        return F.linear(adjusted, self.linear.weight[rows], self.linear.bias[rows])
