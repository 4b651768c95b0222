# Copyright (c) The dspnet_mm authors. All rights reserved.
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .collapse_hook import CollapseHook
from .gradient_hook import GradientHook
from .image_report_hook import ImageReportHook
from .subnet_eval_hook import SubnetEvalHook

__all__ = [
    'AtomicCheckpointHook', 'CollapseHook', 'GradientHook', 'ImageReportHook',
    'SubnetEvalHook'
]
