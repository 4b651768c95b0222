# Sub-networks for small images, as wide as the narrow ResNet-18: half of their
# channels are shared by all, half are of one of two groups.
_base_ = './sdr.py'

model = dict(
    family=dict(
        depth=18,
        base_channels=24,
        shared_channels=8,
        num_groups=2,
        stem='small',
        input_size=32),
    # A sixth faster on a CPU, with as many channels as these.
    channels_last=True,
    base_momentum=0.99,
    predictor_warmup=0.1,
    neck=dict(hid_channels=256, out_channels=64),
    head=dict(
        predictor=dict(in_channels=64, hid_channels=256, out_channels=64)))
