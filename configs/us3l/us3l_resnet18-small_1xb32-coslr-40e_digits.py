_base_ = [
    '../dspnet/dspnet_resnet18-small_1xb32-coslr-40e_digits.py',
    '../_base_/models/us3l.py'
]

model = _base_.us3l
optim_wrapper = dict(optimizer=dict(lr=0.03, weight_decay=0.))
work_dir = './work_dirs/{{ fileBasenameNoExtension }}'
