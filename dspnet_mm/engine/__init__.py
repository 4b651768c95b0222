# Copyright (c) The dspnet_mm authors. All rights reserved.
from .hooks import (AtomicCheckpointHook, ClusterHook, CollapseHook,
                    GradientHook, ImageReportHook, SubnetEvalHook)
from .loop import ResumableTrainLoop
from .model_wrapper import SupernetDistributed

__all__ = [
    'AtomicCheckpointHook', 'ClusterHook', 'CollapseHook', 'GradientHook',
    'ImageReportHook', 'ResumableTrainLoop', 'SubnetEvalHook',
    'SupernetDistributed'
]
