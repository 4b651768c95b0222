# A RetinaNet that a CPU can train: a narrow neck and head, and anchors from 16
# pixels on, for images of some hundred pixels.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../../_base_/cpu_1xb8.py',
]

# After _base_, so that MMEngine reads this file as a config.
from dspnet_mm import transfer  # noqa: E402

model = dict(
    data_preprocessor=transfer.normalization(),
    backbone=transfer.backbone(out_indices=(1, 2, 3), norm_eval=False),
    neck=dict(
        in_channels=transfer.out_channels()[1:],
        out_channels=64,
        start_level=0,
        norm_cfg=dict(type='BN', requires_grad=True)),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # Its layers see all levels, which have no statistics in common.
        norm_cfg=dict(type='GN', num_groups=8, requires_grad=True),
        anchor_generator=dict(octave_base_scale=2)))
optim_wrapper = dict(clip_grad=dict(max_norm=10))
custom_imports = dict(imports=['dspnet_mm'], allow_failed_imports=False)
