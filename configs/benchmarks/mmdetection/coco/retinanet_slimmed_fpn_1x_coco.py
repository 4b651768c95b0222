_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=transfer.normalization(),
    backbone=transfer.backbone(
        stem='imagenet',
        out_indices=(0, 1, 2, 3),
        norm_cfg=norm_cfg,
        norm_eval=False),
    neck=dict(in_channels=transfer.out_channels(), norm_cfg=norm_cfg))

data_root = '{{$DATA_ROOT:data/coco}}/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
