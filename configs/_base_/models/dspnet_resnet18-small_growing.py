# The same, whose larger networks begin as the one that the supernet grows
# from: nothing is forgotten, so the largest is a target at once.
_base_ = './dspnet_resnet18-small.py'

model = dict(
    grow_from='shallowest',
    target=[
        dict(subnet='shallowest', until=0.5),
        dict(subnet='largest', until=1)
    ])
