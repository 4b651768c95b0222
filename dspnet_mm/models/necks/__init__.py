# Copyright (c) The dspnet_mm authors. All rights reserved.
from .slimmable_nonlinear_neck import SlimmableNonLinearNeck

__all__ = ['SlimmableNonLinearNeck']
