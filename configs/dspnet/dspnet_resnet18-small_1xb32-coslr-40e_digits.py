_base_ = [
    '../_base_/models/dspnet_resnet18-small.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

model = dict(
    family=dict(input_size=12),
    # Of the training images.
    data_preprocessor=dict(mean=(78., 78., 78.), std=(96., 96., 96.)))

train_cfg = dict(max_epochs=40)
optim_wrapper = dict(optimizer=dict(lr=0.12))
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=10, max_keep_ckpts=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
