# Light views, close to how hands differ: on small centred digits, strong crops
# hurt.
view_pipeline = [
    dict(
        type='RandomResizedCrop', size=12, scale=(0.6, 1.0),
        ratio=(0.6, 1.67)),
    dict(type='RandomRotation', degrees=20),
    dict(
        type='RandomApply',
        transforms=[dict(type='ColorJitter', brightness=0.4, contrast=0.4)],
        prob=0.8),
]
train_pipeline = [
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackSelfSupInputs')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='EmbeddedDigits', split='train', pipeline=train_pipeline))

custom_hooks = [
    dict(
        type='SubnetEvalHook',
        interval=10,
        train_dataset=dict(type='EmbeddedDigits', split='train'),
        test_dataset=dict(type='EmbeddedDigits', split='test'))
]
