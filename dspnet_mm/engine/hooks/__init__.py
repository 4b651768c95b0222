# Copyright (c) The dspnet_mm authors. All rights reserved.
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .cluster_hook import ClusterHook
from .collapse_hook import CollapseHook
from .gradient_hook import GradientHook
from .image_report_hook import ImageReportHook
from .subnet_eval_hook import SubnetEvalHook

__all__ = [
    'AtomicCheckpointHook', 'ClusterHook', 'CollapseHook', 'GradientHook',
    'ImageReportHook', 'SubnetEvalHook'
]
