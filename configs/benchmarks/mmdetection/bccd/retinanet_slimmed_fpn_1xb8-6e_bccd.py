_base_ = '../_base_/retinanet_slimmed_fpn.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# As Pascal VOC: JPEGImages/, Annotations/ and ImageSets/Main/.
data_root = '{{$DATA_ROOT:data/bccd}}'
metainfo = dict(
    classes=('RBC', 'WBC', 'Platelets'),
    palette=[(220, 20, 60), (0, 0, 142), (0, 130, 100)])

model = dict(
    backbone=transfer.backbone(
        stem='imagenet', out_indices=(1, 2, 3), norm_eval=False),
    bbox_head=dict(num_classes=len(metainfo['classes'])))

# Half of 640x480.
scale = (320, 240)
train_dataloader = dict(
    dataset=dict(
        type='XMLDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=scale),
            # Two boxes have no area, and their loss would be infinite.
            dict(type='FilterAnnotations'),
            dict(
                type='RandomFlip',
                prob=[0.25, 0.25, 0.25],
                direction=['horizontal', 'vertical', 'diagonal']),
            dict(type='PackDetInputs'),
        ]))
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type='XMLDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root=''),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                           'scale_factor', 'instances')),
        ]))
test_dataloader = val_dataloader
# Against the boxes that the data set itself gives.
val_evaluator = dict(type='CocoMetric', metric='bbox')
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(interval=6))
