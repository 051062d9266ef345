"""Names of the authors' D-FINE (Peterande/D-FINE), which DEIM shares, beside ours."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_LEVELS = 8


def encoder_pairs() -> Iterator[tuple[str, str]]:
    """The hybrid encoder's prefixes, theirs and ours."""
    for part in ('input_proj.', 'encoder.', 'lateral_convs.'):
        yield f'encoder.{part}', f'neck.{part}'
    for level in range(_MOST_LEVELS):
        for blocks in ('fpn_blocks', 'pan_blocks'):
            for theirs, ours in enumerate(('conv1', 'stages.0', 'stages.1', 'conv2'), 1):
                yield f'encoder.{blocks}.{level}.cv{theirs}.', f'neck.{blocks}.{level}.{ours}.'
        for i in range(2):
            yield f'encoder.downsample_convs.{level}.0.cv{i + 1}.', f'neck.downsample_convs.{level}.{i}.'
