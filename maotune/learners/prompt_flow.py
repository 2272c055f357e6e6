"""Networks by which prompts of one tower are made from those of the other, as parts of HiCroPL."""

import torch
from torch import Tensor, nn

HEADS = 8
"""Of every attention between prompts."""


class Proxy(nn.Module):
    """A token that stands for the prompts X of one layer: p = LN2(q + A(LN1(q), LN1(X), LN1(X)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, width).normal_(std=0.02))
        self.attention = nn.MultiheadAttention(width, HEADS)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, prompts: Tensor) -> Tensor:
        """Return (1, W) for prompts (n, W)."""
        keys = self.norm1(prompts)
        attended, _ = self.attention(self.norm1(self.token), keys, keys, need_weights=False)
        proxy: Tensor = self.norm2(self.token + attended)
        return proxy


class Mapper(nn.Module):
    """Maps prompts of several layers of one tower, which attend to proxies p of the other tower's.

    Q = W_q X,  K = W_k p,  U = W_v p,   Q' = Q + A(LN1(Q), LN1(K), LN1(U)),   Q'' = Q' + FFN(LN2(Q'))
    """

    def __init__(self, width: int, proxy_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(proxy_width, width), nn.Linear(proxy_width, width)
        self.attention = nn.MultiheadAttention(width, HEADS)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, prompts: Tensor, proxies: Tensor) -> Tensor:
        """Return (m, W) for prompts (m, W) and proxies (k, V)."""
        query = self.query(prompts)
        keys, values = self.norm1(self.key(proxies)), self.norm1(self.value(proxies))
        attended, _ = self.attention(self.norm1(query), keys, values, need_weights=False)
        query = query + attended
        hidden = self.up(self.norm2(query))
        mapped: Tensor = query + self.down(hidden * torch.sigmoid(1.702 * hidden))
        return mapped
