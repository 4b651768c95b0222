_base_ = [
    '../_base_/models/sdr_resnet18-small.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

# Four clusters, which differ in the last two stages.
model = dict(
    family=dict(levels=2, input_size=12),
    # Of the training images.
    data_preprocessor=dict(mean=(78., 78., 78.), std=(96., 96., 96.)))

train_dataloader = dict(
    # Batches are of different sizes, and none is left over.
    drop_last=False,
    batch_sampler=dict(
        type='ClusterBatchSampler',
        num_groups=_base_.model.family.num_groups,
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
