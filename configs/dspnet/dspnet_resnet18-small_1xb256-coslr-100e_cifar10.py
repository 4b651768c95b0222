_base_ = './dspnet_resnet18-small_1xb256-coslr-100e_folder.py'

train_dataloader = dict(dataset=dict(data_root='data/cifar10/train'))
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
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
