# A short schedule, lengthened by train_cfg.max_epochs alone: the cosine spans
# the whole training, at whose end it is validated.
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1000)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
