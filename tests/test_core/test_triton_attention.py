"""The Triton kernels in Triton's interpreter, which needs no GPU, against a loop in double precision.

Triton reads TRITON_INTERPRET once, where a kernel is defined. So one process apart has it set and runs all the checks,
and neither the other tests nor the choice of a back end see it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import attention_oracle
import pytest
import torch
from torch import Tensor

from mmdet_iouquery.core.deformable_attention import triton_kernels

Check = Callable[..., None]

NO_TRITON = 'triton is not installed, so its kernels can run nowhere, not even in its interpreter'

# Single precision rounds by 2**-24 and a sum here has up to 200 terms, the largest being what errors are relative to.
# A half is rounded once, when it is stored: by 2**-11 of itself, and bfloat16, which the interpreter cuts off rather
# than rounds, by up to 2**-7.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2**-11 + 2e-6, torch.bfloat16: 2**-7 + 2e-6}

# Drawn with them are 1 to 4 levels, maps of one pixel, levels without a point, and one to three blocks of queries.
CHANNELS = (1, 3, 7, 9, 33)


class Inputs(NamedTuple):
    value: Tensor
    spatial_shapes: list[tuple[int, int]]
    num_points: tuple[int, ...]
    locations: Tensor
    weights: Tensor


def random_inputs(channels: int, dtype: torch.dtype = torch.float64) -> Inputs:
    """Heads of some channels, each number of which draws its own shapes: 1 to 4 maps of 1x1 to 6x6 pixels.

    A map has 0 to 3 points, which fall up to half of its size beyond it.
    """
    torch.manual_seed(channels)
    draw = random.Random(channels)
    levels, batch, queries, heads = draw.randint(1, 4), draw.randint(1, 2), draw.randint(1, 6), draw.randint(1, 3)
    shapes = [(1, 1) if draw.random() < 0.2 else (draw.randint(1, 6), draw.randint(1, 6)) for _ in range(levels)]
    points = (draw.randint(1, 3), *(draw.randint(0, 3) for _ in range(levels - 1)))
    places = torch.float64 if dtype == torch.float64 else torch.float32
    rows = (batch, queries, heads, sum(points))
    return Inputs(
        torch.randn(batch, sum(h * w for h, w in shapes), heads, channels).to(dtype),
        shapes,
        points,
        torch.rand(*rows, 2, dtype=places) * 2 - 0.5,
        torch.rand(rows, dtype=places),
    )


def one_level(height: int, width: int, locations: Tensor) -> Inputs:
    """One image, one head of one channel; (Q, 2) locations are a query's only point each."""
    torch.manual_seed(height * width)
    value = torch.randn(1, height * width, 1, 1, dtype=locations.dtype)
    weights = torch.rand(1, len(locations), 1, 1, dtype=locations.dtype)
    return Inputs(value, [(height, width)], (1,), locations.view(1, -1, 1, 1, 2), weights)


def run(attend: Callable[..., Tensor], inputs: Inputs, sampling: str, device: str = 'cpu') -> tuple[Tensor, ...]:
    """What it returns and the gradients of value, locations and weights, for a gradient that is always the same."""
    dtype = torch.float64 if attend is attention_oracle.attend else None
    tensors = (inputs.value, inputs.locations, inputs.weights)
    leaves = [x.detach().to(device, dtype or x.dtype).requires_grad_() for x in tensors]
    attended = attend(leaves[0], inputs.spatial_shapes, inputs.num_points, *leaves[1:], sampling)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(attended.shape, generator=generator).to(inputs.value.dtype).to(attended)
    gradients = torch.autograd.grad(attended, leaves, gradient, allow_unused=True)
    return attended.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients))


def equals_oracle(inputs: Inputs, sampling: str, device: str = 'cpu') -> None:
    actual = run(triton_kernels.attend, inputs, sampling, device)
    expected = run(attention_oracle.attend, inputs, sampling)
    places = inputs.locations.dtype
    assert [x.dtype for x in actual] == [inputs.value.dtype, inputs.value.dtype, places, places]
    for ours, exact in zip(actual, expected):
        limit = TOLERANCE[ours.dtype] * exact.abs().max().item()
        torch.testing.assert_close(ours.double().cpu(), exact, rtol=0, atol=limit)


def random_inputs_equal_oracle(channels: int, dtype: torch.dtype, sampling: str, device: str = 'cpu') -> None:
    equals_oracle(random_inputs(channels, dtype), sampling, device)


def serve(pipe: Connection) -> None:
    """Call the functions that come through a pipe, and answer each with its traceback, or ''; until it is closed."""
    with contextlib.suppress(EOFError):
        while True:
            check, arguments = pipe.recv()
            try:
                check(*arguments)
            except BaseException:  # pytest.fail's is no Exception
                pipe.send(traceback.format_exc())
            else:
                pipe.send('')


def skip_without_triton() -> None:
    pytest.importorskip('triton', reason=NO_TRITON)
    if torch.__version__ < '2.8':
        pytest.skip('the Triton that comes with this torch cannot compile these kernels')


@pytest.fixture(scope='module')
def interpreted() -> Iterator[Check]:
    """Calls a function of this file in the process whose kernels are interpreted."""
    skip_without_triton()
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TRITON_INTERPRET', '1')
        process.start()
    theirs.close()

    def call(check: Check, *arguments: object) -> None:
        ours.send((check, arguments))
        failure = ours.recv()
        if failure:
            pytest.fail(failure, pytrace=False)

    with ours:
        yield call
    process.join()


@pytest.mark.parametrize('sampling', ['bilinear', 'discrete'])
@pytest.mark.parametrize('channels', CHANNELS)
def test_values_and_gradients_equal_a_loop(interpreted: Check, channels: int, sampling: str) -> None:
    interpreted(random_inputs_equal_oracle, channels, torch.float64, sampling)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('sampling', ['bilinear', 'discrete'])
def test_values_and_gradients_of_each_type_equal_a_loop(interpreted: Check, dtype: torch.dtype, sampling: str) -> None:
    """Half precision is the value's alone: places and weights stay in single precision, and all sums are made in it."""
    interpreted(random_inputs_equal_oracle, 18, dtype, sampling)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device to run the compiled kernels on')
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('sampling', ['bilinear', 'discrete'])
def test_compiled_kernels_equal_a_loop(dtype: torch.dtype, sampling: str) -> None:
    for channels in CHANNELS:
        random_inputs_equal_oracle(channels, dtype, sampling, 'cuda')


def kinks_equal_oracle(sampling: str) -> None:
    places = torch.arange(-3, 20, dtype=torch.float64) / 16
    for height, width in ((4, 2), (1, 8)):
        across = torch.stack([places, places.flip(0)], -1)
        equals_oracle(one_level(height, width, torch.cat([across, across[:, :1].expand(-1, 2)])), sampling)


@pytest.mark.parametrize('sampling', ['bilinear', 'discrete'])
def test_pixel_centres_and_edges(interpreted: Check, sampling: str) -> None:
    """Binary fractions, which meet centres, edges and outer edges exactly, on maps whose sizes are powers of two."""
    interpreted(kinks_equal_oracle, sampling)


def far_points_meet_nothing() -> None:
    far = torch.tensor([1.5, 3.0, 1e5, 3e9, 1e20, 3e38, torch.inf])
    places = torch.cat(
        [torch.cartesian_prod(far, torch.tensor([0.5])), torch.cartesian_prod(torch.tensor([0.5]), -far)]
    )
    for result in run(triton_kernels.attend, one_level(3, 5, places), 'bilinear'):
        assert not result.any(), result  # nor is any NaN


def far_points_read_the_border() -> None:
    far = torch.tensor([-torch.inf, -3e38, -3e9, 3e9, 3e38, torch.inf])
    inputs = one_level(3, 5, torch.cartesian_prod(far, far))
    read = run(triton_kernels.attend, inputs, 'discrete')[0] / inputs.weights[..., 0]
    corner = inputs.value[0, [0, 10, 4, 14], 0]  # by x, then y
    torch.testing.assert_close(read[0].view(2, 3, 2, 3, 1)[:, 0, :, 0].flatten(0, 1), corner)
    torch.testing.assert_close(read[0].view(2, 3, 2, 3, 1)[:, 2, :, 1].flatten(0, 1), corner)


def test_points_far_outside(interpreted: Check) -> None:
    """Bilinear sampling gives 0 and no gradient; discrete sampling a corner, of a map that is no square."""
    interpreted(far_points_meet_nothing)
    interpreted(far_points_read_the_border)


def strides_do_not_matter() -> None:
    inputs = random_inputs(3, torch.float32)
    expected = run(triton_kernels.attend, inputs, 'bilinear')
    wider = torch.cat([inputs.value, torch.full_like(inputs.value, torch.nan)], dim=2)
    views = (
        wider[:, :, : inputs.value.shape[2]],  # a part of a wider projection
        inputs.value.transpose(1, 3).contiguous().transpose(1, 3),  # channels that are apart
    )
    for value in views:
        changed = inputs._replace(
            value=value,
            locations=inputs.locations.transpose(1, 3).contiguous().transpose(1, 3),
            weights=inputs.weights.transpose(0, 2).contiguous().transpose(0, 2),
        )
        assert not value.is_contiguous() and not changed.locations.is_contiguous()
        for ours, dense in zip(run(triton_kernels.attend, changed, 'bilinear'), expected):
            torch.testing.assert_close(ours, dense, rtol=0, atol=0)


def test_strides_do_not_matter(interpreted: Check) -> None:
    interpreted(strides_do_not_matter)


def compiled_equals_eager() -> None:
    compiled = torch.compile(triton_kernels.attend, fullgraph=True, backend='aot_eager', dynamic=True)
    for channels, sampling in ((1, 'bilinear'), (2, 'discrete')):
        inputs = random_inputs(channels, torch.bfloat16)
        with torch.autocast('cpu', torch.bfloat16):
            results = run(compiled, inputs, sampling)
        for ours, eager in zip(results, run(triton_kernels.attend, inputs, sampling)):
            torch.testing.assert_close(ours, eager, rtol=0, atol=0)


def operator_is_sound() -> None:
    from mmdet_iouquery.core.deformable_attention import triton_operator

    value, shapes, points, locations, weights = random_inputs(1, torch.float32)
    leaves = [x.requires_grad_() for x in (value, locations, weights)]
    sizes = [size for shape in shapes for size in shape]
    torch.library.opcheck(triton_operator.attention, (leaves[0], sizes, list(points), *leaves[1:], False))


def test_compiles_into_a_graph_without_breaks(interpreted: Check) -> None:
    """With the gradient, under autocast, and with torch's own checks of an operator, shapes without data among them."""
    interpreted(compiled_equals_eager)
    interpreted(operator_is_sound)


def mismatches_are_refused() -> None:
    value, shapes, points, locations, weights = random_inputs(3)
    for wrong in (
        (value[:, 1:], shapes, points, locations, weights),
        (value, shapes[:-1], points, locations, weights),
        (value, shapes, (*points[:-1], points[-1] + 1), locations, weights),
        (value[:, :, 1:], shapes, points, locations, weights),
        (value, shapes, points, locations, weights[:, 1:]),
        (value, shapes, points, locations[..., :1], weights),
    ):
        with pytest.raises(ValueError, match=r'tokens|have to be'):
            triton_kernels.attend(*wrong, 'bilinear')


def test_mismatched_shapes_are_refused(interpreted: Check) -> None:
    """Rather than read beyond a tensor."""
    interpreted(mismatches_are_refused)


def gradient_is_refused() -> None:
    inputs = one_level(2, 2, torch.rand(2, 2))
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match='not deterministic'):
            run(triton_kernels.attend, inputs, 'bilinear')
        torch.use_deterministic_algorithms(True, warn_only=True)
        run(triton_kernels.attend, inputs, 'bilinear')
    finally:
        torch.use_deterministic_algorithms(False)


def test_gradient_is_refused_where_only_deterministic_ones_are_allowed(interpreted: Check) -> None:
    interpreted(gradient_is_refused)


def ptx(program: Any, arguments: dict[str, str | tuple[str, ...]], constants: dict[str, Any]) -> str:
    """What a program is compiled to for compute capability 9.0, where each pointer and stride is a multiple of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: constants.pop(name) for name in ('num_warps', 'enable_fp_fusion')}
    kinds = {name: arguments.get(name, '*fp32') for name in program.arg_names}
    kinds.update(dict.fromkeys(constants, 'constexpr'))
    whole = [name for name, kind in kinds.items() if kind == '*fp32' or name.startswith('stride')]
    multiples = {(program.arg_names.index(name),): [['tt.divisibility', 16]] for name in whole}
    source = ASTSource(program, kinds, constants, multiples)
    return triton.compile(source, target=GPUTarget('cuda', 90, 32), options=options).asm['ptx']


def test_compiled_for_a_gpu_they_read_and_add_16_bytes_a_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interpreter takes programs that the compiler refuses; compiling needs no GPU."""
    skip_without_triton()
    if triton_kernels._INTERPRETED:
        pytest.skip('TRITON_INTERPRET is set, so nothing is compiled')
    from mmdet_iouquery.core.deformable_attention import triton_operator

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    value, locations = torch.empty(1, 9, 8, 32), torch.empty(1, 1, 8, 2, 2)
    integers = dict.fromkeys(['queries', 'tokens', 'stride_image', 'stride_token'], 'i32')
    arguments = {'sizes': ('fp32', 'fp32'), **integers}
    forward, backward = (
        ptx(program, arguments, triton_operator._constants(value, (2,), locations, False, value.element_size()))
        for program in (triton_operator.deformable_attention_forward, triton_operator.deformable_attention_backward)
    )
    assert forward.count('ld.global.v4') == 2 * 4  # the corners of two points
    assert backward.count('ld.global.v4') == 1 + 4  # the gradient, and the corners in the loop over points
    assert backward.count('.relaxed.add.v4.f32') == 4


def test_missing_says_what_triton_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, '_INTERPRETED', False)
    monkeypatch.setattr(torch, '__version__', type(torch.__version__)('2.8.0'))
    monkeypatch.setattr(triton_kernels.importlib.util, 'find_spec', lambda name: None)
    assert triton_kernels._lacking() == 'triton is not installed'
    monkeypatch.setattr(triton_kernels.importlib.util, 'find_spec', lambda name: name)
    monkeypatch.setattr(triton_kernels.shutil, 'which', lambda name: None)
    monkeypatch.delenv('CC', raising=False)
    assert triton_kernels._lacking() == 'triton needs a C compiler'
    monkeypatch.setenv('CC', 'cc')
    assert triton_kernels._lacking() is None
    monkeypatch.setattr(torch, '__version__', type(torch.__version__)('2.7.1+cu128'))
    assert triton_kernels._lacking() == 'torch is older than 2.8'


def test_missing_says_what_a_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, '_INTERPRETED', False)
    monkeypatch.setattr(triton_kernels, '_LACKING', None)
    cpu, gpu = torch.device('cpu'), torch.device('cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert triton_kernels.missing(cpu) == triton_kernels.missing(gpu) == 'no CUDA device'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for major, reason in ((6, 'triton needs compute capability 7.0'), (7, None)):
        monkeypatch.setattr(
            torch.cuda, 'get_device_properties', lambda device, major=major: SimpleNamespace(major=major)
        )
        assert triton_kernels.missing(gpu) == reason
    assert triton_kernels.missing(cpu) == 'no CUDA device'
    monkeypatch.setattr(triton_kernels, '_LACKING', 'triton is not installed')
    assert triton_kernels.missing(gpu) == 'triton is not installed'
