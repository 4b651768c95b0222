_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../../_base_/digits-6e.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# Scenes of 64 pixels, digits of 12 to 20: the stages of strides 2, 4 and 8 see
# them, and anchors begin at 8 pixels.
strides = [2, 4, 8]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(transfer.normalization(), pad_size_divisor=8),
    backbone=transfer.backbone(stem='small', out_indices=(1, 2, 3)),
    neck=dict(
        in_channels=transfer.out_channels()[1:],
        out_channels=32,
        start_level=0,
        add_extra_convs=False,
        num_outs=len(strides),
        norm_cfg=norm_cfg),
    bbox_head=dict(
        num_classes=10,
        in_channels=32,
        feat_channels=32,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(strides=strides)))

# From tools/dataset/make_digit_scenes.py.
data_root = '{{$DATA_ROOT:data/digit_scenes}}'
metainfo = dict(classes=[str(digit) for digit in range(10)])
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ]))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='test/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            # Keeps the size, and says so.
            dict(type='Resize', scale=(64, 64)),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                           'scale_factor')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file=f'{data_root}/annotations/test.json',
    metric='bbox')
test_evaluator = val_evaluator

optim_wrapper = dict(clip_grad=dict(max_norm=10))
default_hooks = dict(checkpoint=dict(interval={{_base_.max_epochs}}))
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
