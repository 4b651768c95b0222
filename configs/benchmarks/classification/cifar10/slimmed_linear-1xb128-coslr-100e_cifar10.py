_base_ = './slimmed_ft-1xb128-steplr-200e_cifar10.py'

# The backbone is frozen, its statistics included.
model = dict(backbone=dict(frozen_stages=4))
optim_wrapper = dict(optimizer=dict(weight_decay=0.))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    T_max=100,
    by_epoch=True,
    begin=0,
    end=100)
train_cfg = dict(max_epochs=100)
