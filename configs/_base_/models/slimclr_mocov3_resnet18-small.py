# A narrow ResNet-18 for small images, and projections of a size for few.
_base_ = './slimclr_mocov3.py'

model = dict(
    family=dict(depth=18, base_channels=16, stem='small', input_size=32),
    # At least as good, as we measured, as the authors' half and one step.
    sampler=dict(phases=[
        dict(type='FixedSampler', until=0.3),
        dict(type='AllDesiredSampler', until=1)
    ]),
    step_each_subnet=True,
    # So does MoCo v3's, of one network: behind each step.
    follow_each_step=True,
    neck=dict(hid_channels=256, out_channels=64),
    head=dict(
        predictor=dict(in_channels=64, hid_channels=256, out_channels=64)))
