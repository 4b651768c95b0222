# Of LARS: neither decay nor layer-wise scaling for batch norms and biases.
lars_paramwise = dict(
    custom_keys={
        'bn': dict(decay_mult=0, lars_exclude=True),
        'bias': dict(decay_mult=0, lars_exclude=True),
        'downsample.1': dict(decay_mult=0, lars_exclude=True),
    })
