_base_ = [
    '../_base_/models/sdr.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

# Four clusters, which differ in the last two stages. Sub-networks are half of
# what they share, and half of their own.
num_groups = 2
model = dict(
    family=dict(
        depth=18,
        base_channels=24,
        shared_channels=8,
        num_groups=num_groups,
        levels=2,
        stem='small',
        input_size=12),
    base_momentum=0.99,
    predictor_warmup=0.1,
    neck=dict(hid_channels=256, out_channels=64),
    head=dict(
        predictor=dict(in_channels=64, hid_channels=256, out_channels=64)),
    # Of the training images.
    data_preprocessor=dict(mean=(78., 78., 78.), std=(96., 96., 96.)))
train_dataloader = dict(
    # Batches are of different sizes, and none is left over.
    drop_last=False,
    batch_sampler=dict(
        type='ClusterBatchSampler',
        num_groups=num_groups,
        phases=[
            dict(levels=0, until=0.5),
            dict(levels=1, until=0.7),
            dict(levels=2, until=1)
        ]))

train_cfg = dict(max_epochs=40)
custom_hooks = [*_base_.custom_hooks, dict(type='ClusterHook')]
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=10, max_keep_ckpts=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
