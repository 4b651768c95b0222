# Ten epochs of warm-up, then a cosine, lengthened by train_cfg.max_epochs
# alone.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=10,
        convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=200)
