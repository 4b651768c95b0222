# A narrow ResNet-18 for small images, and projections of a size for few.
_base_ = './slimclr_mocov2.py'

model = dict(
    family=dict(depth=18, base_channels=16, stem='small', input_size=32),
    # Of what we measured the best, beside the authors' half and one step.
    sampler=dict(phases=[
        dict(type='FixedSampler', until=0.3),
        dict(type='AllDesiredSampler', until=1)
    ]),
    step_each_subnet=True,
    # So does MoCo v2's, of one network: behind each step.
    follow_each_step=True,
    # So few keys that of some thousand images one seldom meets itself.
    queue_size=256,
    base_momentum=0.99,
    # Batch norms as SimCLR's projector has them: without, the projections of
    # all images fall together in the first epochs, and learn little.
    neck=dict(
        hid_channels=256,
        out_channels=64,
        with_bias=False,
        with_last_bias=False,
        with_hidden_bn=True,
        with_last_bn=True))
