# MoCo v3 (arXiv 2104.02057), with the sizes of its networks for ResNet-50 on
# ImageNet.
_base_ = './slimclr.py'

temperature = 1.0
model = dict(
    type='SlimCLRMoCoV3',
    base_momentum=0.99,
    neck=dict(
        hid_channels=4096,
        out_channels=256,
        with_bias=False,
        with_last_bn=True,
        with_last_bn_affine=False),
    head=dict(
        type='MoCoV3Head',
        predictor=dict(
            type='SlimmableNonLinearNeck',
            slim_input=False,
            slim_hidden=True,
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=False,
            with_last_bn=False,
            with_avg_pool=False),
        loss=dict(type='mmcls.CrossEntropyLoss', loss_weight=2 * temperature),
        temperature=temperature))
