# CIFAR-10 as a folder per class, with kNN while training. Images of one size:
# the loader's processes only decode.
_base_ = './image-folder_32.py'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
train_dataloader = dict(
    dataset=dict(data_root='data/cifar10/train', pipeline=train_pipeline))
crop_on_device = dict(
    type='BatchRandomResizedCrop', size=(32, 32), scale=(0.2, 1.0))
view = [crop_on_device, *_base_.view]
custom_hooks = [
    dict(
        type='SubnetEvalHook',
        interval=5,
        max_train=10000,
        max_test=2000,
        train_dataset=dict(
            type='mmcls.CustomDataset', data_prefix='data/cifar10/train'),
        test_dataset=dict(
            type='mmcls.CustomDataset', data_prefix='data/cifar10/test'))
]
