_base_ = [
    '../_base_/models/sdr_resnet18-small.py',
    '../_base_/datasets/cifar10_32.py',
    '../_base_/schedules/sgd_coslr.py',
    '../_base_/default_runtime.py',
]

# 16 clusters, which differ in all stages.
model = dict(
    data_preprocessor=dict(
        type='AugmentingDataPreprocessor', views=[_base_.view, _base_.view]))

train_dataloader = dict(
    # Batches are of different sizes, and none is left over.
    drop_last=False,
    batch_sampler=dict(
        type='ClusterBatchSampler',
        num_groups=_base_.model.family.num_groups,
        phases=[
            dict(levels=0, until=0.5),
            dict(levels=2, until=0.7),
            dict(levels=4, until=1)
        ]))

train_cfg = dict(max_epochs=100)
# Of the 16, the first and the last.
evaluation = dict(_base_.custom_hooks[0], subnets=['cluster-00', 'cluster-15'])
custom_hooks = [evaluation, dict(type='ClusterHook', num_workers=2)]
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=1))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
