_base_ = [
    '../_base_/models/dspnet_resnet18-small_function-preserving.py',
    '../_base_/datasets/cifar10_32.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=[_base_.view, _base_.view]))

train_cfg = dict(max_epochs=100)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
