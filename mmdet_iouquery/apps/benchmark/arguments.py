"""The command line of ``iouquery benchmark``."""

from __future__ import annotations

import argparse

FAMILIES = {
    'rtdetr': {
        'R18': 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
        'R34': 'rtdetr/rtdetr_r34vd_8xb2-72e_coco.py',
        'R50-M': 'rtdetr/rtdetr_r50vd_m_8xb2-72e_coco.py',
        'R50': 'rtdetr/rtdetr_r50vd_8xb2-72e_coco.py',
        'R101': 'rtdetr/rtdetr_r101vd_8xb2-72e_coco.py',
    },
    'rtdetrv2': {
        'RT-DETRv2-R18': 'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py',
        'RT-DETRv2-R34': 'rtdetrv2/rtdetrv2_r34vd_8xb2-120e_coco.py',
        'RT-DETRv2-R50-M': 'rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py',
        'RT-DETRv2-R50': 'rtdetrv2/rtdetrv2_r50vd_8xb2-72e_coco.py',
        'RT-DETRv2-R101': 'rtdetrv2/rtdetrv2_r101vd_8xb2-72e_coco.py',
    },
    'dfine': {
        'D-FINE-N': 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py',
        'D-FINE-S': 'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py',
        'D-FINE-M': 'dfine/dfine_hgnetv2-m_8xb4-132e_coco.py',
        'D-FINE-L': 'dfine/dfine_hgnetv2-l_8xb4-80e_coco.py',
        'D-FINE-X': 'dfine/dfine_hgnetv2-x_8xb4-80e_coco.py',
    },
    'deim': {
        'DEIM-N': 'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py',
        'DEIM-S': 'deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py',
        'DEIM-M': 'deim/deim-dfine_hgnetv2-m_8xb4-102e_coco.py',
        'DEIM-L': 'deim/deim-dfine_hgnetv2-l_8xb4-58e_coco.py',
        'DEIM-X': 'deim/deim-dfine_hgnetv2-x_8xb4-58e_coco.py',
    },
    'deim_rtdetrv2': {
        'DEIM-RT-DETRv2-R18': 'deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py',
        'DEIM-RT-DETRv2-R34': 'deim/deim-rtdetrv2_r34vd_8xb2-120e_coco.py',
        'DEIM-RT-DETRv2-R50-M': 'deim/deim-rtdetrv2_r50vd_m_8xb2-60e_coco.py',
        'DEIM-RT-DETRv2-R50': 'deim/deim-rtdetrv2_r50vd_8xb2-60e_coco.py',
        'DEIM-RT-DETRv2-R101': 'deim/deim-rtdetrv2_r101vd_8xb2-60e_coco.py',
    },
    'deimv2': {
        'DEIMv2-Atto': 'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py',
        'DEIMv2-Femto': 'deimv2/deimv2_hgnetv2-femto_8xb16-500e_coco.py',
        'DEIMv2-Pico': 'deimv2/deimv2_hgnetv2-pico_8xb16-500e_coco.py',
        'DEIMv2-N': 'deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py',
        'DEIMv2-S': 'deimv2/deimv2_vit-s_8xb4-132e_coco.py',
        'DEIMv2-M': 'deimv2/deimv2_vit-m_8xb4-102e_coco.py',
        'DEIMv2-L': 'deimv2/deimv2_vit-l_8xb4-68e_coco.py',
        'DEIMv2-X': 'deimv2/deimv2_vit-x_8xb4-58e_coco.py',
    },
    'ecdet': {
        'ECDet-S': 'ecdet/ecdet_ecvit-s_8xb4-74e_coco.py',
        'ECDet-M': 'ecdet/ecdet_ecvit-m_8xb4-62e_coco.py',
        'ECDet-L': 'ecdet/ecdet_ecvit-l_8xb4-50e_coco.py',
        'ECDet-X': 'ecdet/ecdet_ecvit-x_8xb4-50e_coco.py',
    },
    'rtdetrv4': {
        'RT-DETRv4-S': 'rtdetrv4/rtdetrv4_hgnetv2-s_8xb4-132e_coco.py',
        'RT-DETRv4-M': 'rtdetrv4/rtdetrv4_hgnetv2-m_8xb4-102e_coco.py',
        'RT-DETRv4-L': 'rtdetrv4/rtdetrv4_hgnetv2-l_8xb4-58e_coco.py',
        'RT-DETRv4-X': 'rtdetrv4/rtdetrv4_hgnetv2-x_8xb4-58e_coco.py',
    },
}
"""The shipped configs of each family's models, by the names of our tables."""

FAMILY_OF = {name: family for family, models in FAMILIES.items() for name in models}

SUBJECTS = (
    *('inference', 'training', 'leave-one-out', 'criterion', 'attention', 'deploy', 'scale', 'data', 'evaluation'),
)
"""What can be measured."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Time ours and others doing the same work in turn; medians. --reference adds the authors' code.",
    )
    parser.add_argument('subject', choices=SUBJECTS)
    parser.add_argument(
        '--reference',
        metavar='DIR',
        help="the code of the models' authors; of RT-DETR rtdetr_pytorch, of RT-DETRv2 rtdetrv2_pytorch",
    )
    parser.add_argument('--out', metavar='FILE', help='write a JSON file of every number, and the curves beside it')
    parser.add_argument('--rounds', type=int, default=9, help='timed calls of each side (default: 9)')
    parser.add_argument('--threads', type=int, metavar='N', help="of torch's (default: its own choice)")
    parser.add_argument(
        '--models', nargs='+', choices=list(FAMILY_OF), metavar='NAME', help=f'of {", ".join(FAMILY_OF)}'
    )
    parser.add_argument('--depths', type=int, nargs='+', choices=(18, 50), default=[18, 50], help='models R18, R50')
    parser.add_argument('--batches', type=int, nargs='+', metavar='N', help='images at once (default: by subject)')
    parser.add_argument('--side', type=int, default=640, metavar='PX', help='of square images (default: 640)')
    parser.add_argument(
        '--objects', type=int, default=20, metavar='N', help='training, leave-one-out: boxes an image (default: 20)'
    )
    parser.add_argument('--bfloat16', action='store_true', help='leave-one-out: under bfloat16 autocast')
    parser.add_argument('--prediction', action='store_true', help='leave-one-out: of a prediction, not of a step')
    parser.add_argument('--compile', action='store_true', help='inference: torch.compile as well')
    parser.add_argument('--growth', action='store_true', help='criterion: vary objects, queries, images and layers')
    parser.add_argument('--counts', type=int, nargs='+', default=[200, 1000], metavar='N', help='scale: images of jobs')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2], metavar='N', help='scale: of the jobs (1 2)')
    parser.add_argument('--pictures', type=int, metavar='N', help='data, evaluation: size of the made-up set')
    return parser
