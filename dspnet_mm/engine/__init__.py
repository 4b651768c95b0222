# Copyright (c) The dspnet_mm authors. All rights reserved.
from .hooks import SubnetEvalHook
from .model_wrapper import SupernetDistributed

__all__ = ['SubnetEvalHook', 'SupernetDistributed']
