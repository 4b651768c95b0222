# Copyright (c) The dspnet_mm authors. All rights reserved.
from .slimmable_batch_norm import SlimmableBatchNorm
from .slimmable_conv import SlimmableConv2d
from .slimmable_layer import SlimmableLayer, SlimmableWeight
from .slimmable_linear import SlimmableLinear

__all__ = [
    'SlimmableBatchNorm', 'SlimmableConv2d', 'SlimmableLayer',
    'SlimmableWeight', 'SlimmableLinear'
]
