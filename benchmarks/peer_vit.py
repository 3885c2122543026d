"""The PyTorch twin of the vision transformer: ViT-S on images of 32x32 in patches of 4x4.

One of the models of `peers.py`. Its layers are those of `jaxvision.models.vit`: norms
before the branches, the exact GELU, a class token, learned positions. Attention is
PyTorch's own fused one.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
  """Attention, then two dense layers, each on normed tokens and added to its input."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.heads = heads
    self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
    self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
    self.dense1, self.dense2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    batch, tokens, width = x.shape
    qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value)
    x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
    return x + self.dense2(F.gelu(self.dense1(self.norm2(x))))


class ViT(nn.Module):
  """ViT-S (width 384, 12 blocks, 6 heads) for images of 32x32x3."""

  def __init__(
    self,
    classes: int,
    patch: int = 4,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
  ):
    super().__init__()
    self.embed = nn.Conv2d(3, width, patch, patch)
    self.token = nn.Parameter(torch.zeros(1, 1, width))
    self.positions = nn.Parameter(0.02 * torch.randn(1, (32 // patch) ** 2 + 1, width))
    self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.head = nn.Linear(width, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    tokens = self.embed(x).flatten(2).transpose(1, 2)
    x = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.positions
    return self.head(self.norm(self.blocks(x)[:, 0]))
