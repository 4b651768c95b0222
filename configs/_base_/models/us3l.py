# What US3L (arXiv 2303.06870) changes in a DSPNet.
us3l = dict(
    type='US3L',
    # A DN or any uniform member; the smallest gets smaller in four phases.
    sampler=dict(
        _delete_=True,
        type='PhasedSampler',
        phases=[
            dict(
                type='SandwichSampler',
                desired_prob=0.5,
                uniform=True,
                smallest=name,
                until=until)
            for name, until in (('large', 0.25), ('medium', 0.5),
                                ('small', 0.75), ('tiny', 1))
        ]),
    # What is not the supernet has a predictor of its own.
    target='largest',
    distillation='second_predictor',
    predictor_warmup=0.,
    grow_from=None,
    momentum_schedule='constant',
    step_each_subnet=True,
    follow_each_step=False,
    # In the place of the optimizer's weight decay.
    group_decay=5e-4)
