# Copyright (c) The dspnet_mm authors. All rights reserved.
from .hooks import (AtomicCheckpointHook, CollapseHook, ImageReportHook,
                    SubnetEvalHook)
from .loop import ResumableTrainLoop
from .model_wrapper import SupernetDistributed

__all__ = [
    'AtomicCheckpointHook', 'CollapseHook', 'ImageReportHook',
    'ResumableTrainLoop', 'SubnetEvalHook', 'SupernetDistributed'
]
