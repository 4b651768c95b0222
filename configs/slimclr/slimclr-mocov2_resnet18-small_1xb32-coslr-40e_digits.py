_base_ = [
    '../_base_/models/slimclr_mocov2.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

# A narrow ResNet-18, and projections of a size for few images.
model = dict(
    family=dict(depth=18, base_channels=16, stem='small', input_size=12),
    # Of the training images.
    data_preprocessor=dict(mean=(78., 78., 78.), std=(96., 96., 96.)),
    queue_size=1024,
    base_momentum=0.99,
    neck=dict(hid_channels=256, out_channels=64))

train_cfg = dict(max_epochs=40)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=10, max_keep_ckpts=1),
    gradients=dict(type='GradientHook'))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
