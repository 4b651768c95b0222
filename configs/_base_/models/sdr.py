# SDR (arXiv 2205.13267): BYOL's networks, of which each batch trains the
# sub-network of its cluster. The family comes with each config.
_base_ = './dspnet.py'

model = dict(
    type='SDR',
    family=dict(type='GroupedResNetFamily'),
    sampler=dict(_delete_=True, type='ClusterSampler'))
