_base_ = [
    'mmcls::_base_/models/resnet50.py',
    'mmcls::_base_/datasets/imagenet_bs32.py',
    'mmcls::_base_/default_runtime.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# The linear evaluation by which MMSelfSup measures BYOL: the backbone is
# frozen, its statistics included.
model = dict(
    backbone=transfer.backbone(frozen_stages=4),
    head=dict(in_channels=transfer.out_channels()[-1]))
data_preprocessor = transfer.normalization()
data_preprocessor['to_rgb'] = data_preprocessor.pop('bgr_to_rgb')

data_root = '{{$DATA_ROOT:data/imagenet}}'
train_dataloader = dict(batch_size=512, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='mmselfsup.LARS', lr=1.6, momentum=0.9, weight_decay=0.))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=90, by_epoch=True, begin=0, end=90)
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
