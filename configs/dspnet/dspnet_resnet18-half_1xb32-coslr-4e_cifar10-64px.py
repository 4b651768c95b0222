_base_ = './dspnet_resnet18-half_1xb32-coslr-200e_folder-128px.py'

# The same family on CIFAR-10: where photographs of one's own are few or all
# alike, those of others teach more.
crop = [
    dict(
        type='RandomResizedCrop',
        size=64,
        scale=(0.2, 1.0),
        interpolation='bicubic')
]
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='MultiView', num_views=2, transforms=[crop]),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
train_dataloader = dict(
    dataset=dict(data_root='data/cifar10/train', pipeline=train_pipeline))
model = dict(family=dict(input_size=64))

train_cfg = dict(max_epochs=4)
default_hooks = dict(checkpoint=dict(interval=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
