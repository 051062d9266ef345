"""Blocks of queries that stand side by side, and the losses of each block's layers under their names.

Letters as in :mod:`mmdet_iouquery.core`; S names of a term's losses, one a block and layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...structures import Decoded, Pairs


class Block(NamedTuple):
    """Queries that stand side by side."""

    prefixes: Sequence[str]
    """Of their losses' names, one a layer."""
    queries: slice
    """Where they stand among all."""
    pairs: Pairs
    """Which of them answer for what, counted from the block's first query."""
    avg_factor: Tensor
    """What each sum is divided by, one of :class:`AvgFactors` or, for denoising, a multiple."""

    @property
    def num_queries(self) -> int:
        """Of an image."""
        return int(self.queries.stop - self.queries.start)


class AvgFactors(NamedTuple):
    """What sums are divided by: means over the processes, at least 1."""

    num_boxes: Tensor
    """Of ground-truth boxes."""
    num_pairs: Tensor
    """Of the union."""


def decoder_blocks(
    decoded: Decoded, own: Pairs, union: Pairs | None, avg_factors: AvgFactors, num_layers: int
) -> tuple[list[Block], list[Block]]:
    """The denoising queries, where there are some, and the matching ones.

    Once with the pairs that class scores learn by, and once with those that boxes learn by: the same list where they
    are the same.

    Args:
        own: each layer's, on the host.
        union: one layer's, by which the matching queries' boxes learn; None: by each layer's own.
        num_layers: with the initial prediction, or without.
    """
    logits = decoded.predictions.logits
    prefixes = [*(f'd{i}.' for i in range(logits.shape[0] - 1)), '', 'pre.'][:num_layers]
    pairs = own.first_layers(num_layers).to(logits.device)
    blocks = [Block(prefixes, decoded.matching_slice, pairs, avg_factors.num_boxes)]
    if decoded.denoising is not None:
        pairs = Pairs.of_layers(num_layers, *decoded.denoising.pairs)
        names = [f'{prefix}dn_' for prefix in prefixes]
        avg_factor = avg_factors.num_boxes * decoded.denoising.num_groups
        blocks.insert(0, Block(names, decoded.denoising_slice, pairs, avg_factor))
    if union is None:
        return blocks, blocks
    pairs = Pairs.of_layers(num_layers, *union.to(logits.device)[1:])
    return blocks, [*blocks[:-1], blocks[-1]._replace(pairs=pairs, avg_factor=avg_factors.num_pairs)]


class MatchedBoxes(NamedTuple):
    """The pairs of all blocks, and their boxes."""

    blocks: Sequence[Block]
    pairs: Pairs
    """Counted from the first query of all."""
    name: Tensor
    """(M,) int64, which of the S names each pair's losses go under."""
    predicted: Tensor
    """(M, 4)."""
    truth: Tensor
    """(M, 4)."""

    @classmethod
    def of(cls, blocks: Sequence[Block], boxes: Tensor, truth_boxes: Tensor) -> MatchedBoxes:
        """Of predicted boxes (L, B, Q, 4) of all blocks' queries and those of the ground truth (T, 4)."""
        pairs, names, first_name = [], [], 0
        for block in blocks:
            pairs.append(block.pairs._replace(query=block.pairs.query + block.queries.start))
            names.append(block.pairs.layer + first_name)
            first_name += len(block.prefixes)
        joined = Pairs(*(torch.cat(columns) for columns in zip(*pairs)))
        return cls(blocks, joined, torch.cat(names), boxes[joined.predicted], truth_boxes[joined.truth])

    def sums(self, loss: Tensor) -> dict[str, Tensor]:
        """Of each pair's loss (M,), the sum of each block and layer over its ``avg_factor``, by prefix."""
        prefixes = [prefix for block in self.blocks for prefix in block.prefixes]
        sums = loss.new_zeros(len(prefixes)).index_add(0, self.name, loss)
        return dict(zip(prefixes, (sums / _avg_factors(self.blocks)).unbind()))


def query_sums(blocks: Sequence[Block], loss: Tensor) -> dict[str, Tensor]:
    """Of each query's loss (L, B, Q, ...), the sum of each block and layer over its ``avg_factor``, by prefix."""
    by_block = [loss[:, :, block.queries] for block in blocks]
    sums = torch.cat([block_loss.sum(tuple(range(1, block_loss.dim()))) for block_loss in by_block])
    prefixes = [prefix for block in blocks for prefix in block.prefixes]
    return dict(zip(prefixes, (sums / _avg_factors(blocks)).unbind()))


def named(terms: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """``{term: {prefix: loss}}`` as ``{prefix + term: loss}``, the terms of a prefix one after the other."""
    prefixes = dict.fromkeys(prefix for losses in terms.values() for prefix in losses)
    return {prefix + term: terms[term][prefix] for prefix in prefixes for term in terms if prefix in terms[term]}


def _avg_factors(blocks: Sequence[Block]) -> Tensor:
    """(S,)."""
    return torch.stack([block.avg_factor for block in blocks for _ in block.prefixes])
