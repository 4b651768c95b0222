_base_ = 'mmselfsup::selfsup/_base_/default_runtime.py'

custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)

model_wrapper_cfg = dict(type='SupernetDistributed')

default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook'),
    images=dict(type='ImageReportHook'),
    collapse=dict(type='CollapseHook'))

vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend')
]
visualizer = dict(vis_backends=vis_backends)

randomness = dict(seed=0)
