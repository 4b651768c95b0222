# Copyright (c) The dspnet_mm authors. All rights reserved.
from .algorithms import DSPNet, SupernetAlgorithm
from .backbones import SlimmableResNet, SlimResNet
from .data_preprocessor import AugmentingDataPreprocessor
from .layers import (SlimmableBatchNorm, SlimmableConv2d, SlimmableLayer,
                     SlimmableLinear)
from .necks import SlimmableNonLinearNeck
from .samplers import AllDesiredSampler, FixedSampler, SandwichSampler
from .slimmable_network import SlimmableNetwork, activate

__all__ = [
    'AllDesiredSampler', 'AugmentingDataPreprocessor', 'DSPNet',
    'FixedSampler', 'SandwichSampler', 'SlimResNet', 'SlimmableBatchNorm',
    'SlimmableConv2d', 'SlimmableLayer', 'SlimmableLinear', 'SlimmableNetwork',
    'SlimmableNonLinearNeck', 'SlimmableResNet', 'SupernetAlgorithm',
    'activate'
]
