# The same, whose larger networks begin as the one that the supernet grows
# from. Nothing is forgotten, so it grows earlier, and the largest is the
# target at once.
_base_ = './dspnet_resnet18-small.py'

model = dict(
    grow_from='shallowest',
    sampler=dict(phases=[
        dict(type='FixedSampler', name='shallowest', until=0.4),
        dict(type='SandwichSampler', num_random=2, desired_prob=1.0, until=1)
    ]),
    target=[
        dict(subnet='shallowest', until=0.4),
        dict(subnet='largest', until=1)
    ])
