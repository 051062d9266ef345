"""``python tests/gpu_checks [--list] [--only NAME ...] [--out DIR] [--budget S] [--wheels DIR]``; see ``__init__.py``.

Exit status: 0 every part passed, or lacks what it needs (which is said); 1 some did not; 2 there is nothing to run on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from gpu_checks import carry  # noqa: E402
from gpu_checks.frame import Part, exit_status, refuse, run_child, run_parts, summary  # noqa: E402

PARTS = {
    'environment': Part(60, 'what the doctor and nvidia-smi say'),
    'kernels': Part(90, "the Triton kernels outside Triton's interpreter, by the tests of deformable attention"),
    'parity': Part(60, 'outputs, losses and gradients of every family on the GPU beside the CPU, by each back end'),
    'steps': Part(60, 'training steps of RT-DETR-R18 at 640 px in single precision, float16 and bfloat16'),
    'ddp': Part(75, 'tools/dist_train.sh over NCCL with one GPU beside a plain training'),
    'resume': Part(60, 'a training broken off and resumed beside one that was not'),
    'quickstart': Part(120, "the quickstart's training, 900 steps, and its AP"),
    'accelerate': Part(40, 'AccelerateTrainingHook leaves a training on a GPU alone'),
    'deterministic': Part(40, 'which back ends train under torch.use_deterministic_algorithms, and bit for bit'),
    'attention': Part(40, 'benchmark: back ends of deformable attention'),
    'inference': Part(60, 'benchmark: prediction as built, prepared, in bfloat16'),
    'training': Part(60, 'benchmark: training steps'),
    'export': Part(75, "an exported file on onnxruntime's CUDA provider, and an engine of TensorRT if that is there"),
    'compile': Part(150, 'torch.compile as one graph: the first size and all others'),
}
"""By name, in their order: what matters most comes first, as the time may end before they do."""
IN_TRAININGS = ('ddp', 'resume', 'deterministic', 'accelerate', 'quickstart')
BUDGET = 470
"""Seconds for all: eight minutes with the start of Python."""


def parser() -> argparse.ArgumentParser:
    """The arguments; those of a child, and the device for trying the parts without a GPU, are not shown."""
    parser = argparse.ArgumentParser(description=__doc__, prog='python tests/gpu_checks')
    parser.add_argument('--list', action='store_true', help='print the parts and their time limits, and run nothing')
    parser.add_argument('--only', nargs='+', choices=list(PARTS), metavar='NAME', help='run these parts')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'gpu', help='results.json and logs go here')
    parser.add_argument('--budget', type=float, default=BUDGET, metavar='S', help='seconds for all (%(default)s)')
    parser.add_argument('--wheels', type=Path, metavar='DIR', help='packages to use that are not installed here')
    parser.add_argument(
        '--pack', type=Path, metavar='DIR', help='fill DIR with wheels for --wheels elsewhere, and stop'
    )
    parser.add_argument('--python', default=carry.this_python(), metavar='X.Y', help='--pack: of the other machine')
    parser.add_argument('--there', type=Path, metavar='FILE', help="--pack: the other machine's pip freeze")
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda', help=argparse.SUPPRESS)
    parser.add_argument('--part', choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument('--report', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--limit', type=float, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for."""
    args = parser().parse_args(arguments)
    parts = {name: part for name, part in PARTS.items() if not args.only or name in args.only}
    if args.list:
        for name, part in parts.items():
            print(f'{name:14} {part.limit:4.0f} s  {part.about}')
        print(f'{"all":14} {args.budget:4.0f} s at most; results go to {args.out}')
        return 0
    if args.pack:
        print(carry.pack(args.pack, args.python, args.there))
        return 0
    if args.part:
        module = importlib.import_module(f'gpu_checks.{"trainings" if args.part in IN_TRAININGS else "parts"}')
        function = getattr(module, f'check_{args.part}')
        return run_child(lambda report: function(report, args.device), args.report, args.limit)
    with tempfile.TemporaryDirectory() as folder:
        if args.wheels:
            sys.path.insert(0, carry.unpack(args.wheels, Path(folder)))
        os.environ['PYTHONPATH'] = os.pathsep.join([*sys.path[:3], *filter(None, [os.environ.get('PYTHONPATH')])])
        missing = why_not(args.device)
        if missing:
            return refuse(missing)

        def command(name: str, report: Path, limit: float) -> list[str]:
            own = [f'--part={name}', f'--report={report}', f'--limit={limit}', f'--device={args.device}']
            return [sys.executable, '-u', str(HERE), *own]

        results = run_parts(parts, command, args.out.resolve(), args.budget)
    print(f'{summary(results)}; written: {args.out / "results.json"}')
    return exit_status(results)


def why_not(device: str) -> str | None:
    """Why nothing can run here, in a sentence."""
    try:
        import torch
    except ImportError as error:
        return f'torch does not import ({error}), without which there is nothing to check on a GPU'
    if device == 'cuda' and not torch.cuda.is_available():
        return f'torch {torch.__version__} sees no CUDA device here, and these checks are about nothing else'
    return None


if __name__ == '__main__':
    sys.exit(main())
