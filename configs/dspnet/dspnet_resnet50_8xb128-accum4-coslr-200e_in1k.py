# BYOL's recipe (arXiv 2006.07733, appendix C): a batch of 4,096 = 8 processes
# x 128 images x 4 accumulated, LARS, and a target momentum from 0.996 to 1.
_base_ = [
    '../_base_/models/dspnet.py',
    '../_base_/datasets/image-folder_224.py',
    'mmselfsup::selfsup/_base_/schedules/lars_coslr-200e_in1k.py',
    '../_base_/schedules/lars_paramwise.py',
    '../_base_/default_runtime.py',
]

model = dict(
    family=dict(
        depth=50,
        input_size=224,
        # Our choice: the paper's widths and depths are not at hand.
        desired=[
            dict(name='resnet50_1.00x', widths=1.0),
            dict(name='resnet50_0.75x', widths=0.75),
            dict(name='resnet50_0.50x', widths=0.5, depths=[3, 4, 5, 3]),
            dict(name='resnet50_0.25x', widths=0.25, depths=[2, 3, 4, 2]),
        ]),
    channels_last=True,
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=_base_.views))

train_cfg = dict(type='ResumableTrainLoop')
train_dataloader = dict(dataset=dict(data_root='data/imagenet/train'))

optim_wrapper = dict(
    accumulative_counts=4,
    optimizer=dict(lr=4.8),
    paramwise_cfg=_base_.lars_paramwise)

custom_hooks = [
    dict(
        type='SubnetEvalHook',
        interval=20,
        max_train=50000,
        max_test=10000,
        num_workers=8,
        train_dataset=dict(
            type='mmcls.ImageNet',
            data_root='data/imagenet/',
            ann_file='meta/train.txt',
            data_prefix='train/'),
        test_dataset=dict(
            type='mmcls.ImageNet',
            data_root='data/imagenet/',
            ann_file='meta/val.txt',
            data_prefix='val/'))
]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
