# SimCLR (arXiv 2002.05709), with the sizes of its networks on ImageNet.
_base_ = './slimclr.py'

model = dict(
    type='SlimCLRSimCLR',
    neck=dict(hid_channels=2048, out_channels=128),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='mmcls.CrossEntropyLoss'),
        temperature=0.1))
