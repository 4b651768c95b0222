_base_ = './sdr_resnet18-small_1xb256-coslr-100e_cifar10.py'

# What tools/dataset/make_mixture.py writes. Three clusters, which differ in
# the last stage: sub-networks of 4 shared channels and one of three groups as
# large.
model = dict(
    family=dict(base_channels=16, shared_channels=4, num_groups=3, levels=1))

train_dataloader = dict(
    # Of few images, small batches: the same epochs have more steps.
    batch_size=32,
    dataset=dict(data_root='data/mixture/images'),
    batch_sampler=dict(
        num_groups=3,
        # Early, since what parts late has little of the learning rate left.
        phases=[dict(levels=0, until=0.25),
                dict(levels=1, until=1)]))

train_cfg = dict(max_epochs=48)
custom_hooks = [
    dict(
        _base_.custom_hooks[0],
        subnets=[f'cluster-{number}' for number in range(3)],
        train_dataset=dict(
            type='mmcls.CustomDataset',
            data_prefix='data/mixture/tasks/animals/train'),
        test_dataset=dict(
            type='mmcls.CustomDataset',
            data_prefix='data/mixture/tasks/animals/test')),
    # Worlds are of any size, and what is cut apart learns from less.
    dict(_base_.custom_hooks[1], balanced=False)
]
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
