_base_ = [
    'mmcls::_base_/models/resnet50.py',
    'mmcls::_base_/datasets/cifar10_bs16.py',
    'mmcls::_base_/schedules/cifar10_bs128.py',
    'mmcls::_base_/default_runtime.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

model = dict(
    backbone=transfer.backbone(),
    head=dict(
        num_classes=10, in_channels=transfer.out_channels()[-1], topk=(1, )))
data_preprocessor = transfer.normalization()
# MMClassification's CIFAR10 is in RGB already.
data_preprocessor['to_rgb'] = not data_preprocessor.pop('bgr_to_rgb')

# Downloaded to there where it is missing.
data_root = '{{$DATA_ROOT:data/cifar-10}}'
train_dataloader = dict(batch_size=128, dataset=dict(data_prefix=data_root))
val_dataloader = dict(batch_size=128, dataset=dict(data_prefix=data_root))
test_dataloader = val_dataloader
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
