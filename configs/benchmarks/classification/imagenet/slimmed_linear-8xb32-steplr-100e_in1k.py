_base_ = './slimmed_linear-8xb512-coslr-90e_in1k.py'

# MoCo's protocol.
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=30., momentum=0.9, weight_decay=0.))
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[60, 80], gamma=0.1)
]
train_cfg = dict(max_epochs=100)
