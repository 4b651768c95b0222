# 256 sub-networks, each a ResNet-18: half of its channels are shared by all,
# half are of one of four groups in each stage.
_base_ = [
    '../_base_/models/sdr.py',
    '../_base_/datasets/image-folder_224.py',
    'mmselfsup::selfsup/_base_/schedules/lars_coslr-200e_in1k.py',
    '../_base_/schedules/lars_paramwise.py',
    '../_base_/default_runtime.py',
]

num_groups = 4
model = dict(
    family=dict(
        depth=18,
        base_channels=160,
        shared_channels=32,
        num_groups=num_groups,
        input_size=224),
    channels_last=True,
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=_base_.views))

train_dataloader = dict(
    # Batches are of different sizes, and none is left over.
    drop_last=False,
    batch_sampler=dict(
        type='ClusterBatchSampler',
        num_groups=num_groups,
        phases=[
            dict(levels=0, until=0.5),
            dict(levels=1, until=0.7),
            dict(levels=4, until=1)
        ]),
    dataset=dict(data_root='data/imagenet/train'))
train_cfg = dict(type='ResumableTrainLoop')

# BYOL's rate for 4,096 images (arXiv 2006.07733, appendix C), for the 1,024 of
# 8 processes. LARS and weight decay look at whole layers, of which a batch
# trains some channels: both act more on groups than they would on networks of
# their own. What that does is not measured.
optim_wrapper = dict(
    optimizer=dict(lr=1.2), paramwise_cfg=_base_.lars_paramwise)

# In seconds: the other processes wait while the first clusters the images.
env_cfg = dict(dist_cfg=dict(timeout=6 * 3600))
custom_hooks = [dict(type='ClusterHook', num_workers=8)]
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
