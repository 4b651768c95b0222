# BYOL's networks (arXiv 2006.07733) with slimmable layers. The
# family of sub-networks comes with each config.
model = dict(
    type='DSPNet',
    base_momentum=0.996,
    sampler=dict(type='SandwichSampler', num_random=1, desired_prob=1.0),
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True),
    backbone=dict(type='SlimmableResNet'),
    neck=dict(
        type='SlimmableNonLinearNeck',
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=True),
    head=dict(
        type='LatentPredictHead',
        predictor=dict(
            type='SlimmableNonLinearNeck',
            slim_input=False,
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False),
        loss=dict(type='CosineSimilarityLoss')))
