_base_ = '../_base_/retinanet_slimmed_fpn.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402
from dspnet_mm.datasets.coco_format import coco_classes  # noqa: E402

# Holds train/, test/, annotations/train.json and annotations/test.json.
data_root = '{{$DATA_ROOT:data/mine}}'
classes = coco_classes(data_root)
metainfo = dict(classes=classes)

model = dict(
    backbone=transfer.backbone(
        stem='imagenet', out_indices=(1, 2, 3), norm_eval=False),
    bbox_head=dict(num_classes=len(classes)))

# The longest side, in pixels.
scale = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='test/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file=f'{data_root}/annotations/test.json',
    metric='bbox')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=24, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))
