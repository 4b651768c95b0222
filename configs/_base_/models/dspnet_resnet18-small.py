# A narrow ResNet-18 for small images, and four networks desired of it.
_base_ = './dspnet.py'

model = dict(
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
    # The supernet grows from one of its shallow networks, which all learn
    # from until the largest is as good a target. Where all begin at once,
    # deep random networks draw everybody's features together.
    sampler=dict(
        _delete_=True,
        type='PhasedSampler',
        phases=[
            dict(type='FixedSampler', name='shallowest', until=0.5),
            dict(
                type='SandwichSampler',
                num_random=2,
                desired_prob=1.0,
                until=1)
        ]),
    target=[
        dict(subnet='shallowest', until=0.7),
        dict(subnet='largest', until=1)
    ],
    predictor_warmup=0.1,
    # More steps from the same images, with the target network behind each.
    step_each_subnet=True,
    follow_each_step=True,
    neck=dict(hid_channels=256, out_channels=64),
    head=dict(
        predictor=dict(in_channels=64, hid_channels=256, out_channels=64)))
