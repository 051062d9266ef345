"""Parts that need no training of mmengine's. Each takes a report and the name of a device."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import plain_configs  # noqa: F401  before mmengine
import pytest
import torch
from helpers import FAMILY, build_detector, random_batch, small_detector, with_fixed_norms
from mmdet.utils import register_all_modules
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from numpy.typing import NDArray
from torch import Tensor, nn

import mmdet_iouquery  # noqa: F401  before anything of mmdet
from mmdet_iouquery import prepare_for_inference
from mmdet_iouquery.core.deformable_attention import BACKENDS, why_not

from .frame import Report, SkipError

ROOT = Path(__file__).resolve().parents[2]
R18 = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'

register_all_modules(init_default_scope=True)
torch.manual_seed(0)


def check_environment(report: Report, device: str) -> None:
    """Nothing can fail but the doctor itself; what it says decides how the rest is read."""
    with report.step('nvidia-smi'):
        asked = 'name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit,mig.mode.current'
        if shutil.which('nvidia-smi') is None:
            raise SkipError('there is no nvidia-smi on the PATH')
        command = ['nvidia-smi', f'--query-gpu={asked}', '--format=csv,noheader']
        report.add('nvidia-smi', subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())
    report.add('torch', [torch.__version__, torch.version.cuda, torch.backends.cudnn.version()])
    if device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        report.add('device', [properties.name, properties.major, properties.minor, properties.total_memory])
        report.add('nccl', torch.cuda.nccl.version())
    with report.step('doctor'):
        from mmdet_iouquery.apps.doctor.environment import examine, gather

        diagnosis = examine(gather())
        report.add('doctor', [f'{row.name} {row.value} {row.note}'.strip() for row in diagnosis.rows])
        report.add('problems', [f'{finding.level}: {finding.text}' for finding in diagnosis.findings])
        report.add('slow', [str(reason) for reason in diagnosis.slow])
    reasons = {name: why_not(name, torch.device(device), (4, 4, 4), 'bilinear') for name in BACKENDS}
    report.add('back ends that cannot run', {name: reason for name, reason in reasons.items() if reason})


def check_kernels(report: Report, device: str) -> None:
    """pytest's own counts; of what failed, the names and the last lines."""
    files = ('test_triton_attention.py', 'test_deformable_attention.py')
    with TemporaryDirectory() as folder:
        results = Path(folder) / 'results.xml'
        pytest.main(
            [
                *(str(ROOT / 'tests' / 'test_core' / name) for name in files),
                *(f'--junitxml={results}', '-q', '-p', 'no:cacheprovider', f'--rootdir={ROOT}'),
            ]
        )
        cases = list(ElementTree.parse(results).getroot().iter('testcase'))
    ends: dict[str, list[str]] = {'passed': [], 'skipped': [], 'failure': [], 'error': []}
    for case in cases:
        kind = next((child.tag for child in case if child.tag in ends), 'passed')
        ends[kind].append(str(case.get('name')))
    report.add('tests', {kind: len(names) for kind, names in ends.items()})
    report.add('not passed', {kind: names for kind, names in ends.items() if kind != 'passed' and names})
    compiled = [name for name in ends['passed'] if name.startswith('test_compiled_kernels_equal_a_loop')]
    report.add('compiled kernels', compiled)
    report.holds('no test failed', true=not (ends['failure'] or ends['error']))
    report.holds('the compiled kernels were run', true=len(compiled) == 8 or device == 'cpu')


def outcome(model: Any, images: Tensor, samples: list[Any]) -> dict[str, Any]:
    """Losses and gradient norms of a training step without denoising, on the device of the model."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    losses = model.loss(images.to(device), [sample.to(device) for sample in copy.deepcopy(samples)])
    torch.stack([value for name, value in losses.items() if 'loss' in name]).sum().backward()
    gradients = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    return {'losses': {name: value.item() for name, value in losses.items()}, 'gradients': gradients}


def furthest(ours: dict[str, float], others: dict[str, float]) -> float:
    """The largest difference of two sets of numbers, relative to the largest of them; infinite where names differ."""
    if ours.keys() != others.keys():
        return float('inf')
    scale = max(abs(value) for value in others.values())
    return max(abs(ours[name] - others[name]) for name in ours) / scale


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Products and convolutions in single precision, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def check_parity(report: Report, device: str) -> None:
    """Losses and gradients of a step within 1e-3 of the CPU's, and raw outputs of the same tokens within 1e-3."""
    runs = [name for name in BACKENDS if why_not(name, torch.device(device), (4, 4, 4), 'bilinear') is None]
    for family, settings in FAMILY.items():
        torch.manual_seed(0)
        model: Any = small_detector(**settings)
        model.init_weights()
        model.bbox_head.denoising = None
        with_fixed_norms(model.train())  # of two small images
        images, samples = random_batch([3, 0], 160, 192)
        with report.step(f'{family} on the CPU'):
            expected = outcome(model, images, samples)
        for backend in runs:
            points = getattr(model.bbox_head.decoder, 'num_points', None)
            with report.step(f'{family} by {backend}'), exact_products():
                there = copy.deepcopy(model).to(device)
                if not use_backend(there, backend):
                    raise SkipError(f'{backend} does not know its points, {points}')
                actual = outcome(there, images, samples)
                for kind, limit in (('losses', 1e-3), ('gradients', 1e-2)):
                    report.at_most(f'{family} by {backend}: {kind}', furthest(actual[kind], expected[kind]), limit)


def use_backend(model: nn.Module, backend: str) -> bool:
    """Have every deformable attention take a back end; False where one cannot."""
    device = next(model.parameters()).device
    modules: list[Any] = [module for module in model.modules() if hasattr(module, 'backend')]
    for module in modules:
        points = getattr(module, 'num_points', (4, 4, 4))
        if why_not(backend, device, points, getattr(module, 'sampling', 'bilinear')) is not None:
            return False
        module.backend = backend
    return bool(modules)


def check_steps(report: Report, device: str) -> None:
    """Six steps on one batch in each precision: losses finite and falling, weights finite, the first losses alike."""
    size, count, side = (8, 6, 640) if device == 'cuda' else (2, 2, 96)
    torch.manual_seed(0)
    fresh: Any = build_detector(R18, data_preprocessor__batch_augments=None).train()
    fresh.init_weights()
    images, samples = random_batch([20] * size, side, side, num_classes=80)
    first: dict[str, float] = {}
    for name, dtype in (('float32', None), ('float16', torch.float16), ('bfloat16', torch.bfloat16)):
        with report.step(name):
            model = copy.deepcopy(fresh).to(device)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            wrapper: Any = OptimWrapper(optimizer, clip_grad={'max_norm': 0.1})
            if dtype is not None:
                wrapper = amp_wrapper(optimizer, dtype, device)
            numbers = train(model, wrapper, images, samples, count, device)
            report.add(name, numbers)
            losses = numbers['losses']
            first[name] = losses[0]
            report.holds(f'{name}: losses are finite, {losses}', true=bool(np.isfinite(losses).all()))
            report.holds(f'{name}: the loss falls, {losses}', true=losses[-1] < losses[0])
            bad = [key for key, value in model.named_parameters() if not value.isfinite().all()]
            report.holds(f'{name}: weights are finite; not so: {bad[:5]}', true=not bad)
    for name, limit in (('float16', 0.02), ('bfloat16', 0.05)):
        if {name, 'float32'} <= first.keys():
            report.at_most(f'{name}: first loss, relative', abs(first[name] / first['float32'] - 1), limit)


def amp_wrapper(optimizer: torch.optim.Optimizer, dtype: torch.dtype, device: str) -> Any:
    """mmengine's, as ``--amp`` has it; on a CPU, which has bfloat16 alone, the package's own."""
    if device == 'cpu':
        if dtype == torch.float16:
            raise SkipError('float16 trains on GPUs alone')
        from mmdet_iouquery.engine.bfloat16_optim_wrapper import BFloat16OptimWrapper

        return BFloat16OptimWrapper(optimizer=optimizer, clip_grad={'max_norm': 0.1})
    name = str(dtype).removeprefix('torch.')
    return AmpOptimWrapper(dtype=name, optimizer=optimizer, clip_grad={'max_norm': 0.1})


def train(model: Any, wrapper: Any, images: Tensor, samples: list[Any], count: int, device: str) -> dict[str, Any]:
    """Losses, seconds of the last step, and the most memory that tensors had, of some steps on one batch."""
    images, samples = images.to(device), [sample.to(device) for sample in copy.deepcopy(samples)]
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    losses, start = [], time.perf_counter()
    for _ in range(count):
        torch.manual_seed(0)  # the same denoising in each
        start = time.perf_counter()
        with wrapper.optim_context(model):
            parts = model.loss(images, samples)
            total = torch.stack([value for name, value in parts.items() if 'loss' in name]).sum()
        wrapper.update_params(total)
        losses.append(total.item())
    numbers: dict[str, Any] = {'losses': losses, 'last_step_s': time.perf_counter() - start}
    if device == 'cuda':
        numbers['peak_mb'] = torch.cuda.max_memory_allocated() / 1e6
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None:
        numbers['loss_scale'] = scaler.get_scale()
    return numbers


@torch.no_grad()
def check_compile(report: Report, device: str) -> None:
    """One graph without breaks, for the first size and for all others; outputs as eager ones, of the same tokens."""
    sizes = [(640, 640), (512, 768), (800, 800)] if device == 'cuda' else [(96, 96), (64, 128)]
    few = {} if device == 'cuda' else {'neck__num_fusion_blocks': 1, 'bbox_head__decoder__num_layers': 1}
    torch.manual_seed(0)
    built: Any = build_detector(R18, **few).eval().to(device)
    for name, dtype, limit in (('float32', torch.float32, 1e-2), ('bfloat16', torch.bfloat16, 0.5)):
        with report.step(name):
            torch.compiler.reset()
            model = prepare_for_inference(built, dtype)

            def predict(images: Tensor, model: Any = model) -> tuple[Tensor, Tensor]:
                selection = model.bbox_head.run_parts(model.extract_feat(images))
                return selection.predictions.logits[-1].float(), selection.selection.token_index

            compiled = torch.compile(predict, fullgraph=True)
            for height, width in sizes:
                images, start = torch.rand(2, 3, height, width, device=device), time.perf_counter()
                logits, chosen = compiled(images)
                eager, by_eager = predict(images)
                seconds, key = time.perf_counter() - start, f'{name}, {height}x{width}'
                report.add(f'{key}: seconds of the first call', round(seconds, 2))
                shared = np.isin(chosen.cpu().numpy()[0], by_eager.cpu().numpy()[0])
                report.add(f'{key}: share of tokens chosen alike', float(shared.mean()))
                low, high = (x.sort(1).values for x in (logits.amax(-1), eager.amax(-1)))
                report.at_most(f'{key}: sorted scores', (low - high).abs().max().item(), limit)


def benchmarked(report: Report, device: str, *arguments: str) -> None:
    """Numbers of ``iouquery benchmark``."""
    from mmdet_iouquery.apps.benchmark.command import benchmark

    small = () if device == 'cuda' else ('--rounds', '1', '--side', '64', '--batches', '1', '--models', 'R18')
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'report.json'
        benchmark([*arguments, *small, '--out', str(path)])
        measured = json.loads(path.read_text(encoding='utf-8'))
    report.add('machine', measured['machine'])
    report.add('rows', measured['rows'])


def check_attention(report: Report, device: str) -> None:
    """Those of every back end that runs here, forward and backward, in two precisions."""
    benchmarked(report, device, 'attention', '--rounds', '20', '--batches', '1', '16')


def check_inference(report: Report, device: str) -> None:
    """Of the smallest, a middle and the newest model."""
    models = ('R18', 'R50', 'D-FINE-S')
    benchmarked(report, device, 'inference', '--rounds', '20', '--batches', '1', '8', '32', '--models', *models)


def check_training(report: Report, device: str) -> None:
    """Of RT-DETR-R50 with the batch that its recipe has on a GPU, and with sixteen images."""
    benchmarked(report, device, 'training', '--rounds', '10', '--batches', '2', '16', '--models', 'R50')


def check_export(report: Report, device: str) -> None:
    """One file, R18 for one image of any bytes: as the model (its own check), on CUDA, and as an engine of TensorRT."""
    for package in ('onnx', 'onnxslim', 'onnxruntime'):
        if find_spec(package) is None:
            raise SkipError(f'{package} is not installed')
    from mmdet_iouquery.deploy.export import ExportSettings, export_onnx

    side = 640 if device == 'cuda' else 64
    settings = ExportSettings(size=(side, side), batch=1, attention='gather', opset=17, input='float32-nchw', raw=True)
    torch.manual_seed(0)
    model: Any = build_detector(R18).eval()
    model.init_weights()
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'model.onnx'
        export = export_onnx(model, path, settings)
        report.add('file', [f'{export.num_bytes / 1e6:.1f} MB, {export.num_nodes} nodes', *map(str, export.parity)])
        images = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
        expected = by_onnxruntime(path, images, 'CPUExecutionProvider')
        with report.step('onnxruntime'):
            import onnxruntime

            providers = onnxruntime.get_available_providers()
            report.add('providers', providers)
            if 'CUDAExecutionProvider' not in providers:
                raise SkipError('this onnxruntime has no CUDA provider')
            compare(report, 'onnxruntime on CUDA', by_onnxruntime(path, images, 'CUDAExecutionProvider'), expected)
        with report.step('TensorRT'):
            compare(report, 'TensorRT', by_tensorrt(report, path, images), expected)


def compare(report: Report, name: str, actual: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    """Best logits of the queries, in their order, and shapes; equal scores may have changed places."""
    report.holds(f'{name}: shapes', true=[x.shape for x in actual] == [x.shape for x in expected])
    best = [np.sort(outputs[0].max(-1)) for outputs in (actual, expected)]
    report.at_most(f'{name}: sorted scores', float(np.abs(best[0] - best[1]).max()), 5e-2)


def by_onnxruntime(path: Path, images: NDArray[Any], provider: str) -> list[NDArray[Any]]:
    """All outputs, logits first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    feeds = {entry.name: images for entry in session.get_inputs()}
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def by_tensorrt(report: Report, path: Path, images: NDArray[Any]) -> list[NDArray[Any]]:
    """All outputs of an engine that is built here, logits first; how long that took, and a call of it."""
    try:
        import tensorrt  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise SkipError(f'tensorrt does not import: {error}') from error
    report.add('tensorrt', tensorrt.__version__)
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder, start = tensorrt.Builder(logger), time.perf_counter()
    # TensorRT 10 has networks of explicit types by a flag, later ones have no others
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise RuntimeError('; '.join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    report.add('engine: seconds to build', round(time.perf_counter() - start, 1))
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    context, stream = engine.create_execution_context(), torch.cuda.Stream()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    tensors = {
        name: torch.from_numpy(images).cuda()
        if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
        else torch.empty(tuple(engine.get_tensor_shape(name)), device='cuda')
        for name in names
    }
    for name, tensor in tensors.items():
        context.set_tensor_address(name, tensor.data_ptr())
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        seconds.append(time.perf_counter() - start)
    report.add('engine: median ms', 1000 * float(np.median(seconds)))
    outputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT]
    return [tensors[name].cpu().numpy() for name in outputs]
