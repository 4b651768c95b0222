_base_ = './slimmed_linear-1xb128-coslr-100e_folder.py'

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

# All networks in the folder of EXPORT, each with a linear layer of its own
# (switchable=False: with the first inputs of one layer).
names, paths, channels = transfer.folder_networks()
model = dict(
    backbone=dict(_delete_=True, type='ExportedNetworks', paths=paths),
    head=dict(
        _delete_=True,
        type='JointLinearHead',
        in_channels=channels,
        num_classes=_base_.num_classes,
        switchable=True))
val_evaluator = dict(_delete_=True, type='SubnetAccuracy', names=names)
test_evaluator = val_evaluator
