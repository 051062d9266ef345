# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Deformable attention's Triton programs, forward and backward: one warp for a few queries of one head.

A program goes through all levels and points of its queries, a thread holding up to 16 bytes of a pixel's channels, so
that a warp reads and adds whole rows of a head. Capitals are constants that a program is compiled for; the maps' sizes
are not among them, so that images of several sizes share one program.
"""

import triton
import triton.language as tl


@triton.jit
def _queries(queries, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """First row of this program in (B, Q, H), steps from it to its other rows, and which of them there are."""
    start = tl.program_id(0) * BLOCK
    index = tl.arange(0, BLOCK)
    first = (tl.program_id(2).to(tl.int64) * queries + start) * HEADS + tl.program_id(1)
    return first, index * HEADS, index < queries - start


@triton.jit
def _pixel_before(coordinate, size, DISCRETE: tl.constexpr):
    """Along one axis, the last pixel whose centre is not after a coordinate, and the share of the next one."""
    if DISCRETE:
        pixel = tl.minimum(tl.maximum(coordinate * size + 0.5, 0.0), size - 1.0).to(tl.int32)
        return pixel, tl.zeros_like(coordinate)
    else:
        # beyond these bounds no pixel is met; without them a far coordinate would not fit into an integer
        pixel = tl.minimum(tl.maximum(coordinate * size - 0.5, -2.0), size + 1.0)
        before = tl.floor(pixel)
        return before.to(tl.int32), pixel - before


@triton.jit
def _point(locations, weights, point, real, height, width, DISCRETE: tl.constexpr, TYPE: tl.constexpr):
    """A point of each query: the pixel at its upper left, shares of those on the right and below, and its weight."""
    x = tl.load(locations + 2 * point, mask=real, other=0.0).to(TYPE)
    y = tl.load(locations + 2 * point + 1, mask=real, other=0.0).to(TYPE)
    weight = tl.load(weights + point, mask=real, other=0.0).to(TYPE)
    left, after_x = _pixel_before(x, width, DISCRETE)
    top, after_y = _pixel_before(y, height, DISCRETE)
    return left, top, after_x, after_y, weight


@triton.jit
def _corner(left, top, after_x, after_y, height, width, CORNER: tl.constexpr):
    """One of the four pixels about a point: its index, its shares along x and y, and whether the map has it."""
    x = left + CORNER % 2
    y = top + CORNER // 2
    share_x = after_x if CORNER % 2 else 1.0 - after_x
    share_y = after_y if CORNER // 2 else 1.0 - after_y
    return y * width + x, share_x, share_y, (x >= 0) & (x < width) & (y >= 0) & (y < height)


@triton.jit(do_not_specialize=['queries'])
def deformable_attention_forward(
    output,
    value,
    locations,
    weights,
    sizes,  # height and width of each level, as floats: an int in a tuple would be compiled for whether 16 divides it
    queries,
    stride_image,
    stride_token,
    HEADS: tl.constexpr,
    HEAD_DIMS: tl.constexpr,
    POINTS: tl.constexpr,  # of each level
    ALL_POINTS: tl.constexpr,
    CORNERS: tl.constexpr,  # 4, or 1: discrete
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Output (B, Q, H, D / H) of value (B, N, H, D / H), locations (B, Q, H, S, 2) and weights (B, Q, H, S)."""
    first, step, real = _queries(queries, HEADS, BLOCK_QUERIES)
    channel = tl.arange(0, BLOCK_DIMS)[None, :]
    kept = real[:, None] & (channel < HEAD_DIMS)
    locations += first * (2 * ALL_POINTS)
    weights += first * ALL_POINTS
    value += tl.program_id(2).to(tl.int64) * stride_image + tl.program_id(1) * HEAD_DIMS
    point = step * ALL_POINTS
    total = tl.zeros([BLOCK_QUERIES, BLOCK_DIMS], TYPE)
    for level in tl.static_range(len(POINTS)):
        height = tl.cast(sizes[2 * level], tl.int32)
        width = tl.cast(sizes[2 * level + 1], tl.int32)
        # unrolled, so that many reads are under way at once
        for _ in tl.static_range(tl.constexpr(POINTS[level])):
            left, top, after_x, after_y, weight = _point(
                locations, weights, point, real, height, width, CORNERS == 1, TYPE
            )
            for corner in tl.static_range(CORNERS):
                pixel, share_x, share_y, met = _corner(left, top, after_x, after_y, height, width, corner)
                address = value + (pixel.to(tl.int64) * stride_token)[:, None] + channel
                read = tl.load(address, mask=met[:, None] & kept, other=0.0).to(TYPE)
                total += (weight * share_x * share_y)[:, None] * read
            point += 1
        value += (height * width).to(tl.int64) * stride_token
    tl.store(output + first * HEAD_DIMS + step[:, None] * HEAD_DIMS + channel, total, mask=kept)


@triton.jit(do_not_specialize=['queries', 'tokens'])
def deformable_attention_backward(
    grad_value,
    grad_locations,
    grad_weights,
    grad_output,
    value,
    locations,
    weights,
    sizes,
    queries,
    tokens,
    stride_image,
    stride_token,
    HEADS: tl.constexpr,
    HEAD_DIMS: tl.constexpr,
    POINTS: tl.constexpr,
    ALL_POINTS: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_DIMS: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Adds to grad_value (B, N, H, D / H) and writes the other gradients; of discrete locations there is none."""
    first, step, real = _queries(queries, HEADS, BLOCK_QUERIES)
    channel = tl.arange(0, BLOCK_DIMS)[None, :]
    kept = real[:, None] & (channel < HEAD_DIMS)
    locations += first * (2 * ALL_POINTS)
    weights += first * ALL_POINTS
    grad_locations += first * (2 * ALL_POINTS)
    grad_weights += first * ALL_POINTS
    image = tl.program_id(2).to(tl.int64)
    value += image * stride_image + tl.program_id(1) * HEAD_DIMS
    grad_value += (image * tokens * HEADS + tl.program_id(1)) * HEAD_DIMS
    grad = tl.load(grad_output + first * HEAD_DIMS + step[:, None] * HEAD_DIMS + channel, mask=kept, other=0.0).to(TYPE)
    point = step * ALL_POINTS
    for level in tl.static_range(len(POINTS)):
        height = tl.cast(sizes[2 * level], tl.int32)
        width = tl.cast(sizes[2 * level + 1], tl.int32)
        # not unrolled: no read may pass the additions before it
        for _ in range(POINTS[level]):
            left, top, after_x, after_y, weight = _point(
                locations, weights, point, real, height, width, CORNERS == 1, TYPE
            )
            of_weight = tl.zeros_like(weight)
            along_x = tl.zeros_like(weight)
            along_y = tl.zeros_like(weight)
            for corner in tl.static_range(CORNERS):
                pixel, share_x, share_y, met = _corner(left, top, after_x, after_y, height, width, corner)
                address = value + (pixel.to(tl.int64) * stride_token)[:, None] + channel
                read = tl.load(address, mask=met[:, None] & kept, other=0.0).to(TYPE)
                dot = tl.sum(grad * read, 1)
                of_weight += dot * share_x * share_y
                along_x += dot * (share_y if corner % 2 else -share_y)
                along_y += dot * (share_x if corner // 2 else -share_x)
            tl.store(grad_weights + point, of_weight, mask=real)
            if CORNERS == 4:
                tl.store(grad_locations + 2 * point, along_x * weight * width, mask=real)
                tl.store(grad_locations + 2 * point + 1, along_y * weight * height, mask=real)
            for corner in tl.static_range(CORNERS):
                pixel, share_x, share_y, met = _corner(left, top, after_x, after_y, height, width, corner)
                address = grad_value + (pixel.to(tl.int64) * (HEADS * HEAD_DIMS))[:, None] + channel
                share = (weight * share_x * share_y)[:, None] * grad
                tl.atomic_add(address, share, mask=met[:, None] & kept, sem='relaxed')
            point += 1
        value += (height * width).to(tl.int64) * stride_token
        grad_value += (height * width).to(tl.int64) * (HEADS * HEAD_DIMS)
