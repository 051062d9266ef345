"""From the memory to predictions: select, denoise, decode."""

from __future__ import annotations

from ..structures import Decoded, Decoder, DenoisingGenerator, Memory, QuerySelector, Targets


def select_and_decode(
    memory: Memory,
    query_selector: QuerySelector,
    decoder: Decoder,
    denoising: DenoisingGenerator | None = None,
    targets: Targets | None = None,
    *,
    num_queries: int | None = None,
    num_layers: int | None = None,
) -> Decoded:
    """Run the parts of a detection transformer behind its encoder, each one's answer being the next one's question.

    Args:
        targets: what denoising queries are made of; None: there are none.
        num_queries, num_layers: as the selector and the decoder take them.
    """
    selection = query_selector(memory, num_queries)
    queries, mask, noisy = selection.queries, None, None
    if denoising is not None and targets is not None:
        noisy = denoising(targets, queries.num_queries)
        queries, mask = noisy.before(queries), noisy.attention_mask
    return Decoded(memory, selection, noisy, decoder(queries, memory, mask, num_layers))
