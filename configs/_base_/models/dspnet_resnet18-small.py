# A narrow ResNet-18 for small images, and four networks desired of it.
model = dict(
    type='DSPNet',
    family=dict(
        depth=18,
        base_channels=16,
        stem='small',
        input_size=32,
        desired=[
            dict(name='large', widths=1.0, depths=2),
            dict(name='medium', widths=0.75, depths=[2, 2, 1, 1]),
            dict(name='small', widths=0.5, depths=1),
            dict(name='tiny', widths=0.25, depths=1),
        ]),
    base_momentum=0.99,
    sampler=dict(type='SandwichSampler', num_random=1, desired_prob=1.0),
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True),
    backbone=dict(type='SlimmableResNet'),
    neck=dict(
        type='SlimmableNonLinearNeck',
        hid_channels=256,
        out_channels=64,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=True),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='SlimmableNonLinearNeck',
            slim_input=False,
            in_channels=64,
            hid_channels=256,
            out_channels=64,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False),
        loss=dict(type='CosineSimilarityLoss')))
