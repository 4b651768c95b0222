# Copyright (c) The dspnet_mm authors. All rights reserved.
from .algorithms import SEED, DSPNet, SupernetAlgorithm
from .backbones import SlimmableResNet, SlimResNet
from .batch_crop import BatchRandomResizedCrop
from .data_preprocessor import AugmentingDataPreprocessor
from .heads import SEEDHead
from .layers import (SlimmableBatchNorm, SlimmableConv2d, SlimmableLayer,
                     SlimmableLinear)
from .necks import SlimmableNonLinearNeck
from .samplers import (AllDesiredSampler, FixedSampler, PhasedSampler,
                       SandwichSampler)
from .slimmable_network import SlimmableNetwork, activate

__all__ = [
    'AllDesiredSampler', 'AugmentingDataPreprocessor',
    'BatchRandomResizedCrop', 'DSPNet', 'FixedSampler', 'PhasedSampler',
    'SEED', 'SEEDHead', 'SandwichSampler', 'SlimResNet', 'SlimmableBatchNorm',
    'SlimmableConv2d', 'SlimmableLayer', 'SlimmableLinear', 'SlimmableNetwork',
    'SlimmableNonLinearNeck', 'SlimmableResNet', 'SupernetAlgorithm',
    'activate'
]
