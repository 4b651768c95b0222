# A narrow ResNet-18 for small images, and projections of a size for few.
_base_ = './slimclr_simclr.py'

model = dict(
    family=dict(depth=18, base_channels=16, stem='small', input_size=32),
    # As in the configs of MoCo v2 and v3; not measured here.
    sampler=dict(phases=[
        dict(type='FixedSampler', until=0.3),
        dict(type='AllDesiredSampler', until=1)
    ]),
    step_each_subnet=True,
    neck=dict(hid_channels=256, out_channels=64))
