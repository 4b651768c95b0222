# Copyright (c) The dspnet_mm authors. All rights reserved.
from .joint_linear_head import JointLinearHead
from .seed_head import SEEDHead

__all__ = ['JointLinearHead', 'SEEDHead']
