_base_ = [
    'mmseg::_base_/models/fcn_r50-d8.py',
    '../_base_/runtime_by-epoch.py',
    '../../_base_/cpu_1xb8.py',
    '../../_base_/digits.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    # What it loads is said below.
    pretrained=None,
    data_preprocessor=dict(transfer.normalization(), size=(64, 64)),
    # Strides 1, 2, 2 and 2: the scenes have 64 pixels.
    backbone=transfer.backbone(
        stem='small',
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4)),
    decode_head=dict(
        in_channels=transfer.out_channels()[3],
        channels=32,
        num_convs=1,
        concat_input=False,
        num_classes=11,
        norm_cfg=norm_cfg,
        # Nine pixels of ten are background.
        loss_decode=dict(class_weight=[0.1] + 10 * [1.])),
    auxiliary_head=None)

# From tools/dataset/make_digit_scenes.py.
data_root = '{{$DATA_ROOT:data/digit_scenes}}'
metainfo = dict(
    classes=['background', *map(str, range(10))],
    palette=[[0, 0, 0], *_base_.digit_palette])
train_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='labels/train'),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
val_dataloader = dict(
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(img_path='test', seg_map_path='labels/test'),
        img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
