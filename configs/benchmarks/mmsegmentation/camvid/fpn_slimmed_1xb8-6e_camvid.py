_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../_base_/runtime_by-epoch.py',
    '../../_base_/cpu_1xb8.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# Half of 480x360.
scale = (240, 180)
# Labels of 11 are pixels of no class.
unlabelled = 11
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    # What it loads is said below.
    pretrained=None,
    data_preprocessor=dict(
        transfer.normalization(), size=scale[::-1], seg_pad_val=unlabelled),
    backbone=transfer.backbone(stem='imagenet', out_indices=(0, 1, 2, 3)),
    # A narrow neck and head, that a CPU can train.
    neck=dict(in_channels=transfer.out_channels(), out_channels=64),
    decode_head=dict(
        in_channels=[64, 64, 64, 64],
        channels=64,
        num_classes=11,
        ignore_index=unlabelled,
        norm_cfg=norm_cfg))

# images/ and labels/, each with train/, val/ and test/.
data_root = '{{$DATA_ROOT:data/camvid}}'
metainfo = dict(
    classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree',
             'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'),
    palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128],
             [60, 40, 222], [128, 128, 0], [192, 128, 128], [64, 64, 128],
             [64, 0, 128], [64, 64, 0], [0, 128, 192]])
train_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='Resize', scale=scale),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ]))
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img_path='images/test', seg_map_path='labels/test'),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale),
            # Of the whole size: predictions are scaled up to it.
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='IoUMetric', ignore_index=unlabelled, iou_metrics=['mIoU'])
test_evaluator = val_evaluator
