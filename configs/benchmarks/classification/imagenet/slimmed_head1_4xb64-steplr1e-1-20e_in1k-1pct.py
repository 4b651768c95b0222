_base_ = './slimmed_linear-8xb512-coslr-90e_in1k.py'

# Semi-supervised: all weights are trained, on a part of the labels. MMSelfSup
# tries learning rates from 1e-3 to 1e-1, and 1, 10 or 100 times that for the
# head (paramwise_cfg.custom_keys.head.lr_mult).
model = dict(backbone=dict(frozen_stages=-1, norm_cfg=dict(type='SyncBN')))
train_dataloader = dict(
    batch_size=64, dataset=dict(ann_file='meta/train_1percent.txt'))
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=1.)}))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[12, 16], gamma=0.2)
]
train_cfg = dict(max_epochs=20)
