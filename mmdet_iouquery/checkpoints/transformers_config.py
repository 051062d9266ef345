"""``config.json`` and ``preprocessor_config.json`` of Hugging Face's models, from a config of ours.

What transformers computes otherwise, or not at all, is refused by name. What concerns training alone, such as losses
and matching, is not carried over: transformers has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from ..config_options import type_name
from ..errors import InputError
from ..models.backbones.hgnetv2 import SIZES
from ..models.decoders.deformable import resolve_depth
from .part_arguments import check_kind, part_arguments
from .preprocessing import preprocessing_of_config

_BILINEAR = 2
"""Of Pillow's resampling filters."""


class Family(NamedTuple):
    """One of the three models of transformers, and arguments of our parts that must be so for it."""

    model_type: str
    architecture: str
    backbone: str
    decoder: str
    neck: Mapping[str, Any]
    project: str


_RTDETR = Family('rt_detr', 'RTDetrForObjectDetection', 'ResNetVd', 'DeformableDecoder', {}, 'all')
_RTDETR_V2 = _RTDETR._replace(model_type='rt_detr_v2', architecture='RTDetrV2ForObjectDetection')
_DFINE = Family(
    'd_fine',
    'DFineForObjectDetection',
    'HGNetv2',
    'DistributionDecoder',
    {'fusion': 'elan', 'downsample': 'separable', 'lateral_act': False},
    'unequal',
)


class HuggingFaceConfig(NamedTuple):
    """What stands beside the weights in a folder of transformers."""

    model: dict[str, Any]
    """Content of ``config.json``."""
    preprocessor: dict[str, Any]
    """Content of ``preprocessor_config.json``."""


def transformers_config(cfg: Mapping[str, Any], classes: Sequence[str]) -> HuggingFaceConfig:
    """The same detector as transformers describes it.

    A decoder of which ``test_cfg.num_decoder_layers`` runs the first few gets these alone.

    Args:
        cfg: a whole config: the model, and the test pipeline for the size of images.
        classes: names of the classes, by label.

    Raises:
        InputError: transformers has no such model; the message names the entry.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = cfg.get('model') or {}
    check_kind('model', model, 'SingleStageDetector')
    check_kind('model.bbox_head', model.get('bbox_head'), 'RTDETRHead')
    family = _family_of(model['bbox_head'])
    parts = {'query_selector', 'denoising', 'decoder', 'test_cfg'}
    head = part_arguments(
        'model.bbox_head',
        model['bbox_head'],
        given={'num_classes', 'in_channels', 'embed_dims', *parts},
        fixed={'project': family.project},
    )
    if head['num_classes'] != len(classes):
        raise InputError(
            f'model.bbox_head.num_classes is {head["num_classes"]}, but {len(classes)} classes have names: '
            f'{", ".join(classes[:3])} ...; name as many'
        )
    test_cfg = model.get('test_cfg') or {}
    for name in ('overlap_thr', 'calibration'):
        if test_cfg.get(name) is not None:
            raise InputError(f'model.test_cfg.{name} is set, which transformers does not do; set it to None')
    preprocessor = _preprocessor(cfg)
    decoder = _decoder(head['decoder'] or {'type': 'DeformableDecoder'}, family, test_cfg.get('num_decoder_layers'))
    neck = _neck(model.get('neck'), family)
    _check_square(preprocessor['size'], model['neck'], decoder)
    content = {
        'architectures': [family.architecture],
        'model_type': family.model_type,
        **_backbone(model.get('backbone'), family),
        **neck,
        'd_model': head['embed_dims'],
        'decoder_in_channels': [*head['in_channels']],
        'num_feature_levels': len(head['in_channels']),
        **decoder,
        **_queries(head, test_cfg.get('num_queries')),
        'id2label': {str(i): name for i, name in enumerate(classes)},
        'label2id': {name: i for i, name in enumerate(classes)},
    }
    if family is _RTDETR_V2:
        content['decoder_n_levels'] = len(head['in_channels'])
    return HuggingFaceConfig(content, preprocessor)


def _family_of(head: Mapping[str, Any]) -> Family:
    """D-FINE by its decoder; RT-DETRv2 by what it changed in RT-DETR's: first values, sampling, points per level."""
    decoder = head.get('decoder') or {}
    if type_name(decoder) == 'DistributionDecoder':
        return _DFINE
    listed = isinstance(decoder.get('num_points'), (list, tuple))
    second = listed or decoder.get('ffn_init') == 'xavier' or decoder.get('sampling') == 'discrete'
    return _RTDETR_V2 if second else _RTDETR


def _preprocessor(cfg: Mapping[str, Any]) -> dict[str, Any]:
    images = preprocessing_of_config(cfg)
    lacking = [name for name in ('mean', 'std', 'channel_order', 'scale', 'keep_ratio') if name not in images]
    if lacking:
        raise InputError(
            f'the config does not say what images look like ({", ".join(lacking)}): it needs a model.data_preprocessor '
            'and a test pipeline with a Resize'
        )
    if images['keep_ratio'] or images['channel_order'] != 'RGB':
        has = 'resizes with keep_ratio' if images['keep_ratio'] else f'gives channels as {images["channel_order"]}'
        raise InputError(
            f'the config {has}, and the processor of transformers only stretches, and gives RGB; resize to one square '
            'without keep_ratio, in RGB'
        )
    width, height = images['scale']
    mean, std = ([value / 255 for value in images[name]] for name in ('mean', 'std'))
    return {
        'image_processor_type': 'RTDetrImageProcessor',
        'format': 'coco_detection',
        'do_resize': True,
        'size': {'height': height, 'width': width},
        'resample': _BILINEAR,
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': (mean, std) != ([0.0] * 3, [1.0] * 3),
        'image_mean': mean,
        'image_std': std,
        'do_pad': False,
        'do_convert_annotations': True,
    }


def _check_square(size: Mapping[str, int], neck: Mapping[str, Any], decoder: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` where inputs are no squares and transformers differs for such."""
    by_columns = neck.get('position_order', 'column_major') == 'column_major'
    if size['height'] != size['width'] and (by_columns or decoder.get('decoder_method') == 'discrete'):
        setting = "model.neck.position_order='column_major'" if by_columns else "sampling='discrete'"
        raise InputError(
            f'the test pipeline resizes to {size["width"]} x {size["height"]}, and for inputs that are not square '
            f'transformers does not compute what {setting} does; resize to a square'
        )


def _backbone(node: Any, family: Family) -> dict[str, Any]:
    check_kind('model.backbone', node, family.backbone)
    make = _hgnetv2 if family is _DFINE else _resnet
    arguments, content = make(node)
    levels = [*arguments['out_indices']]
    content.update(out_features=[f'stage{i + 1}' for i in levels], out_indices=[i + 1 for i in levels])
    learns = (arguments['norm_cfg'] or {}).get('requires_grad', True)
    return {
        'backbone_config': content,
        'freeze_backbone_batch_norms': bool(arguments['norm_eval'] and not learns),
        'feat_strides': [4 * 2**i for i in levels],
    }


def _resnet(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    arguments = part_arguments(
        'model.backbone',
        node,
        given={'depth', 'stem_channels', 'base_channels', 'out_indices'},
        training=('frozen_stages', 'norm_eval', 'zero_init_residual', 'pretrained'),
        fixed={'deep_stem': False, 'avg_down': False},
    )
    block, depths = cast(Any, MODELS.get('ResNetVd')).arch_settings[arguments['depth']]
    width = arguments['base_channels']
    return arguments, {
        'model_type': 'rt_detr_resnet',
        'num_channels': 3,
        'embedding_size': arguments['stem_channels'] or width,
        'hidden_sizes': [width * block.expansion * 2**i for i in range(len(depths))],
        'depths': [*depths],
        'layer_type': 'basic' if block.expansion == 1 else 'bottleneck',
        'hidden_act': 'relu',
        'downsample_in_first_stage': False,
        'downsample_in_bottleneck': False,
    }


def _hgnetv2(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    arguments = part_arguments(
        'model.backbone',
        node,
        given={'arch', 'learnable_affine', 'out_indices'},
        training=('frozen_stages', 'norm_eval'),
    )
    size = SIZES[arguments['arch']]
    if arguments['out_indices'] is None:
        arguments['out_indices'] = range(len(size.stages))
    widths = [stage.out_channels for stage in size.stages]
    return arguments, {
        'model_type': 'hgnet_v2',
        'num_channels': 3,
        'stem_channels': [3, *size.stem_channels],
        'stage_in_channels': [size.stem_channels[1], *widths[:-1]],
        'stage_mid_channels': [stage.mid_channels for stage in size.stages],
        'stage_out_channels': widths,
        'stage_num_blocks': [stage.num_blocks for stage in size.stages],
        'stage_downsample': [i > 0 for i in range(len(widths))],
        'stage_light_block': [stage.light for stage in size.stages],
        'stage_kernel_size': [stage.kernel_size for stage in size.stages],
        'stage_numb_of_layers': [stage.num_layers for stage in size.stages],
        'embedding_size': size.stem_channels[1],
        'depths': [stage.num_blocks for stage in size.stages],
        'hidden_sizes': widths,
        'hidden_act': 'relu',
        'use_learnable_affine_block': arguments['learnable_affine'],
    }


def _neck(node: Any, family: Family) -> dict[str, Any]:
    check_kind('model.neck', node, 'HybridEncoder')
    sizes = {'in_channels', 'out_channels', 'num_heads', 'feedforward_channels', 'num_encoder_layers', 'expansion'}
    given = {*sizes, 'encoder_levels', 'temperature', 'position_order'}
    arguments = part_arguments(
        'model.neck',
        node,
        given={*given, 'num_fusion_blocks'} if family is _DFINE else given,
        fixed={**family.neck, 'act_cfg': 'SiLU', 'encoder_act_cfg': 'GELU'},
    )
    num_levels = len(arguments['in_channels'])
    content = {
        'encoder_in_channels': [*arguments['in_channels']],
        'encoder_hidden_dim': arguments['out_channels'],
        'encoder_attention_heads': arguments['num_heads'],
        'encoder_ffn_dim': arguments['feedforward_channels'],
        'encoder_layers': arguments['num_encoder_layers'],
        'encode_proj_layers': [level % num_levels for level in arguments['encoder_levels']],
        'positional_encoding_temperature': int(arguments['temperature']),
        'hidden_expansion': float(arguments['expansion']),
        'activation_function': 'silu',
        'encoder_activation_function': 'gelu',
    }
    if family is _DFINE:
        content['depth_mult'] = arguments['num_fusion_blocks'] / 3  # of 3 blocks
    return content


def _decoder(node: Mapping[str, Any], family: Family, num_run: int | None) -> dict[str, Any]:
    check_kind('model.bbox_head.decoder', node, family.decoder)
    given = {'num_classes', 'embed_dims', 'num_levels', 'num_layers', 'num_heads', 'feedforward_channels', 'num_points'}
    if family is not _RTDETR:
        given.add('sampling')
    if family is _DFINE:
        given |= {'reg_max', 'reg_scale', 'up'}
    arguments = part_arguments(
        'model.bbox_head.decoder',
        node,
        given={
            'num_classes',
            'embed_dims',
            'num_levels',
            'num_layers',
            'num_heads',
            'feedforward_channels',
            'num_points',
        }
        | (set() if family is _RTDETR else {'sampling'})
        | ({'reg_max', 'reg_scale', 'up'} if family is _DFINE else set()),
        fixed={'act_cfg': 'ReLU'},
    )
    num_points = arguments['num_points']
    if family is not _DFINE and not isinstance(num_points, int):
        if len({*num_points}) > 1:
            raise InputError(
                f'model.bbox_head.decoder.num_points is {[*num_points]}, and RT-DETRv2 of transformers knows only one '
                'number for all levels; such a detector cannot be converted: keep it in the form of mmdet'
            )
        num_points = num_points[0]
    content = {
        'decoder_layers': resolve_depth(num_run, arguments['num_layers']),
        'decoder_attention_heads': arguments['num_heads'],
        'decoder_ffn_dim': arguments['feedforward_channels'],
        'decoder_n_points': num_points if isinstance(num_points, int) else [*num_points],
        'decoder_activation_function': 'relu',
    }
    if family is not _RTDETR:
        content['decoder_method'] = 'discrete' if arguments['sampling'] == 'discrete' else 'default'
        content['decoder_offset_scale'] = 0.5
    if family is _DFINE:
        content['max_num_bins'] = arguments['reg_max']
        content['reg_scale'], content['up'] = float(arguments['reg_scale']), float(arguments['up'])
    return content


def _queries(head: Mapping[str, Any], num_queries: int | None) -> dict[str, Any]:
    where, selector = 'model.bbox_head.query_selector', head['query_selector'] or {'type': 'IoUAwareQuerySelector'}
    check_kind(where, selector, 'IoUAwareQuerySelector')
    given = {'num_classes', 'embed_dims', 'num_queries'}
    arguments = part_arguments(where, selector, given=given, fixed={'act_cfg': 'ReLU'})
    content = {'num_queries': num_queries or arguments['num_queries'], 'learn_initial_query': False, 'num_denoising': 0}
    if head['denoising']:
        where = 'model.bbox_head.denoising'
        check_kind(where, head['denoising'], 'ContrastiveDenoising')
        names = ('num_denoising', 'label_noise_ratio', 'box_noise_scale')
        arguments = part_arguments(
            where,
            head['denoising'],
            given={'num_classes', 'embed_dims', *names},
            training=('contrastive', 'num_groups', 'box_noise'),
        )
        content.update({name: arguments[name] for name in names})
    return content
