# MoCo v2 (arXiv 2003.04297), with the sizes of its networks on ImageNet.
_base_ = './slimclr.py'

model = dict(
    type='SlimCLRMoCoV2',
    queue_size=65536,
    base_momentum=0.999,
    momentum_schedule='constant',
    neck=dict(
        hid_channels=2048,
        out_channels=128,
        with_bias=True,
        with_last_bias=True,
        with_hidden_bn=False,
        with_last_bn=False),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='mmcls.CrossEntropyLoss'),
        temperature=0.2))
