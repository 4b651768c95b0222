_base_ = [
    'mmcls::_base_/models/resnet50.py',
    'mmcls::_base_/default_runtime.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# Holds train/CLASS/ and test/CLASS/ (or val/CLASS/).
data_root = '{{$DATA_ROOT:data/cifar10}}'
train_images, test_images, num_classes = transfer.labelled_images(data_root)
input_size = transfer.input_size()

model = dict(
    backbone=transfer.backbone(),
    head=dict(
        num_classes=num_classes,
        in_channels=transfer.out_channels()[-1],
        topk=(1, )))
data_preprocessor = dict(transfer.normalization(), num_classes=num_classes)
data_preprocessor['to_rgb'] = data_preprocessor.pop('bgr_to_rgb')

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=input_size,
        crop_ratio_range=(0.2, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=input_size, edge='short'),
    dict(type='CenterCrop', crop_size=input_size),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **train_images,
        # For a part of the labels, a list that make_label_subset.py wrote.
        ann_file='',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**test_images, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
