"""Two-stage Deformable DETR with the contrastive denoising of DINO."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryDeformableDETR', denoising=dict(type='ContrastiveDenoising', num_denoising=100))
