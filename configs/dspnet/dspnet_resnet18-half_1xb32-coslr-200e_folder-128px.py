_base_ = [
    '../_base_/models/dspnet_resnet18-small.py',
    '../_base_/datasets/image-folder_128.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

# Half the channels of ResNet-18 and its stem, as detectors and segmentors of
# photographs want it. model.family.base_channels=64 makes the large network
# the toolboxes' ResNet-18.
model = dict(
    family=dict(base_channels=32, stem='imagenet', input_size=128),
    # As it was measured by detection and segmentation.
    follow_each_step=False,
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=[_base_.view, _base_.view]))

train_cfg = dict(max_epochs=200)
optim_wrapper = dict(optimizer=dict(lr=0.03))
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=10, max_keep_ckpts=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
