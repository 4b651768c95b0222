# Copyright (c) The dspnet_mm authors. All rights reserved.
from .subnet_eval_hook import SubnetEvalHook

__all__ = ['SubnetEvalHook']
