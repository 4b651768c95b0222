# The authors' recipe: a batch of 1,024 = 8 processes x 128 images, 200 or 800
# epochs.
_base_ = [
    '../_base_/models/slimclr_mocov2.py',
    '../_base_/datasets/image-folder_224-moco.py',
    '../_base_/schedules/warmup-10e_coslr.py',
    '../_base_/default_runtime.py',
]

# MoCo v2's views (arXiv 2003.04297, section 3).
view = [
    dict(type='RandomHorizontalFlip', p=0.5),
    dict(
        type='ColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        p=0.8),
    dict(type='RandomGrayscale', p=0.2),
    dict(_base_.blur, p=0.5),
]
train_dataloader = dict(dataset=dict(data_root='data/imagenet/train'))
model = dict(
    family=dict(depth=50, input_size=224),
    channels_last=True,
    backbone=dict(zero_init_residual=True),
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=[view, view]))

# No decay for biases; those of batch norms have the number of a width behind
# them.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'bias': dict(decay_mult=0)}))
default_hooks = dict(
    checkpoint=dict(interval=5, max_keep_ckpts=3),
    gradients=dict(type='GradientHook', interval=500))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
