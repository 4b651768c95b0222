_base_ = [
    '../dspnet/dspnet_resnet18-small_1xb256-coslr-100e_cifar10.py',
    '../_base_/models/us3l.py'
]

model = _base_.us3l
optim_wrapper = dict(optimizer=dict(weight_decay=0.))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
