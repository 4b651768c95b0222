# The authors' recipe: a batch of 1,024 = 8 processes x 128 images, LARS with a
# learning rate of 1.2 times the cosine while the supernet is alone and of 3.2
# times the cosine from then on.
_base_ = [
    '../_base_/models/slimclr_mocov3.py',
    '../_base_/datasets/image-folder_224-moco.py',
    '../_base_/schedules/warmup-10e_coslr.py',
    '../_base_/schedules/lars_paramwise.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(data_root='data/imagenet/train'))
model = dict(
    family=dict(depth=50, input_size=224),
    channels_last=True,
    backbone=dict(zero_init_residual=True),
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=_base_.views))

optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='LARS', lr=3.2, momentum=0.9, weight_decay=1e-6),
    paramwise_cfg=_base_.lars_paramwise)
# Where it is changed, param_scheduler.0.end is to become half of it.
max_epochs = 300
param_scheduler = [
    dict(
        type='ConstantLR',
        factor=1.2 / 3.2,
        by_epoch=True,
        begin=0,
        end=max_epochs // 2,
        convert_to_iter_based=True), *_base_.param_scheduler
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(
    checkpoint=dict(interval=5, max_keep_ckpts=3),
    gradients=dict(type='GradientHook', interval=500))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
