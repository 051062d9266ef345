"""Attention whose content and position are projected apart (Conditional DETR, section 3.3; DAB-DETR, figure 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...argument_checks import check_heads
from ...core import within_range


class DenseAttention(NamedTuple):
    """Where queries look that attend to every token."""

    weights: Tensor
    """(B, H, Q, N), each query's sum to 1 over the tokens."""


class DotProductAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), with dropout of the weights in training."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """query (B, H, Q, d), key and value (B, H, N, d) to (B, H, Q, d).

        ``allowed`` (Q, N) or (B, 1, 1, N) bool, True = may attend.
        """
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=dropout)


class SelfAttention(nn.MultiheadAttention):
    """Self-attention: the position is added to queries and keys; values are content.

    Parameters, their names and their initial weights are those of torch's ``MultiheadAttention``. The call differs: it
    never makes the attention weights, and projections stay inside float16's range.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        check_heads(num_heads, embed_dims=embed_dims)
        super().__init__(embed_dims, num_heads, dropout=dropout, batch_first=True)
        self.dot_product = DotProductAttention(dropout)

    def forward(  # type: ignore[override]
        self, content: Tensor, position: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """content (B, Q, D) and position (B, Q, D) or (Q, D) to (B, Q, D).

        ``attention_mask`` (Q, Q) bool, True = may not attend.
        """
        wide, allowed = 2 * self.embed_dim, None if attention_mask is None else ~attention_mask
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query, key = F.linear(content + position, weight[:wide], bias[:wide]).chunk(2, dim=-1)
        return _attend(self, query, key, F.linear(content, weight[wide:], bias[wide:]), allowed)


class SeparatedSelfAttention(nn.Module):
    """Self-attention: content and position each have projections of their own, which are added; values are content."""

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(num_heads, embed_dims=embed_dims)
        self.num_heads = num_heads
        self.dot_product = DotProductAttention(dropout)
        self.q_content = nn.Linear(embed_dims, embed_dims)
        self.q_pos = nn.Linear(embed_dims, embed_dims)
        self.k_content = nn.Linear(embed_dims, embed_dims)
        self.k_pos = nn.Linear(embed_dims, embed_dims)
        self.value = nn.Linear(embed_dims, embed_dims)
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, content: Tensor, query_pos: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """content and query_pos (B, Q, D) to (B, Q, D); ``attention_mask`` (Q, Q) bool, True = may not attend."""
        return _attend(
            self,
            self.q_content(content) + self.q_pos(query_pos),
            self.k_content(content) + self.k_pos(query_pos),
            self.value(content),
            None if attention_mask is None else ~attention_mask,
        )


class ConcatenatedCrossAttention(nn.Module):
    """Cross-attention: in each head content and position stand side by side, so that their scores are summed apart.

    A head's score is ``content_q . content_k + pos_q . pos_k``, over the square root of their joint width.

    Args:
        with_query_pos: whether ``query_pos`` is projected and added to the content as well.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float = 0.0, *, with_query_pos: bool = False) -> None:
        super().__init__()
        check_heads(num_heads, embed_dims=embed_dims)
        self.num_heads = num_heads
        self.dot_product = DotProductAttention(dropout)
        self.q_content = nn.Linear(embed_dims, embed_dims)
        self.q_pos = nn.Linear(embed_dims, embed_dims) if with_query_pos else None
        self.q_sine = nn.Linear(embed_dims, embed_dims)
        self.k_content = nn.Linear(embed_dims, embed_dims)
        self.k_pos = nn.Linear(embed_dims, embed_dims)
        self.value = nn.Linear(embed_dims, embed_dims)
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        content: Tensor,
        query_pos: Tensor,
        query_sine: Tensor,
        tokens: Tensor,
        token_pos: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """content, query_pos and query_sine (B, Q, D), tokens (B, N, D), token_pos (1 or B, N, D) to (B, Q, D).

        ``padding`` (B, N) bool, True = is not read.
        """
        query, key = self._query_key(content, query_pos, query_sine, tokens, token_pos)
        value = within_range(self.value(tokens)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        allowed = None if padding is None else ~padding[:, None, None, :]
        attended = self.dot_product(query, key, value, allowed)
        return within_range(self.out_proj(attended.transpose(1, 2).flatten(2)))

    def attention(
        self,
        content: Tensor,
        query_pos: Tensor,
        query_sine: Tensor,
        tokens: Tensor,
        token_pos: Tensor,
        padding: Tensor | None = None,
    ) -> DenseAttention:
        """How much each query reads of each token, without dropout; arguments as for a call."""
        query, key = self._query_key(content, query_pos, query_sine, tokens, token_pos)
        score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if padding is not None:
            score = score.masked_fill(padding[:, None, None, :], -torch.inf)
        return DenseAttention(score.softmax(-1))

    def _query_key(
        self, content: Tensor, query_pos: Tensor, query_sine: Tensor, tokens: Tensor, token_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, H, Q, 2 D / H) and (B, H, N, 2 D / H)."""
        k_pos = self.k_pos(token_pos)
        q_content, k_content = self.q_content(content), self.k_content(tokens)
        if self.q_pos is not None:
            q_content, k_content = q_content + self.q_pos(query_pos), k_content + k_pos
        query = self._side_by_side(q_content, self.q_sine(query_sine))
        return query, self._side_by_side(k_content, k_pos.expand_as(k_content))

    def _side_by_side(self, content: Tensor, position: Tensor) -> Tensor:
        """(B, N, D) twice to (B, H, N, 2 D / H)."""
        heads = (within_range(x).unflatten(-1, (self.num_heads, -1)) for x in (content, position))
        return torch.cat([*heads], dim=-1).transpose(1, 2)


def _attend(
    module: SelfAttention | SeparatedSelfAttention, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None
) -> Tensor:
    """Projected query, key and value (B, Q, D) through the module's heads and output projection: (B, Q, D)."""
    query, key, value = (
        within_range(x).unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    attended = module.dot_product(query, key, value, allowed)
    return within_range(module.out_proj(attended.transpose(1, 2).flatten(2)))
