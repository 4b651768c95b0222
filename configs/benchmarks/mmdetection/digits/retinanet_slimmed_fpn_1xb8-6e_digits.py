_base_ = ['../_base_/retinanet_slimmed_fpn.py', '../../_base_/digits.py']

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# Scenes of 64 pixels, digits of 12 to 20: the stages of strides 2, 4 and 8 see
# them, and anchors begin at 8 pixels.
strides = [2, 4, 8]
model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    backbone=transfer.backbone(
        stem='small', out_indices=(1, 2, 3), norm_eval=False),
    neck=dict(out_channels=32, add_extra_convs=False, num_outs=len(strides)),
    bbox_head=dict(
        num_classes=10,
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(strides=strides, octave_base_scale=4)))

# From tools/dataset/make_digit_scenes.py.
data_root = '{{$DATA_ROOT:data/digit_scenes}}'
metainfo = dict(
    classes=[str(digit) for digit in range(10)], palette=_base_.digit_palette)
train_dataloader = dict(
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

default_hooks = dict(checkpoint=dict(interval=6))
