"""mmdet's DINO with the selector, the decoder and the loss of own_parts."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery', 'own_parts'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDINO',
    query_selector=dict(type='LevelBalancedSelector'),
    decoder=dict(_delete_=True, type='RelativeDecoder', num_layers=6, feedforward_channels=2048),
    bbox_head=dict(loss_cls=dict(_delete_=True, type='AlignLoss')),
)
