# What SlimCLR (arXiv 2209.15525) has in common over its ways of contrasting:
# four widths with batch norms of their own, projectors slimmed inside, and a
# slow start, the supernet alone for the first half. The family of sub-networks
# and the head come with each config.
widths = [1.0, 0.75, 0.5, 0.25]
model = dict(
    family=dict(desired=[
        dict(name=f'width_{width:.2f}', widths=width) for width in widths
    ]),
    switchable_bn=True,
    sampler=dict(
        type='PhasedSampler',
        phases=[
            dict(type='FixedSampler', until=0.5),
            dict(type='AllDesiredSampler', until=1)
        ]),
    loss_weights='largest_outweighs',
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True),
    backbone=dict(type='SlimmableResNet'),
    neck=dict(
        type='SlimmableNonLinearNeck',
        slim_hidden=True,
        num_layers=2,
        with_avg_pool=True))
