# Copyright (c) The dspnet_mm authors. All rights reserved.
from .algorithms import (SDR, SEED, US3L, DSPNet, SlimCLR, SlimCLRMoCoV2,
                         SlimCLRMoCoV3, SlimCLRSimCLR, SupernetAlgorithm)
from .backbones import SlimmableResNet, SlimResNet
from .batch_crop import BatchRandomResizedCrop
from .data_preprocessor import AugmentingDataPreprocessor
from .feature_queue import FeatureQueue
from .heads import JointLinearHead, SEEDHead
from .layers import (SlimmableBatchNorm, SlimmableConv2d, SlimmableLayer,
                     SlimmableLinear)
from .necks import SlimmableNonLinearNeck
from .samplers import (AllDesiredSampler, ClusterSampler, FixedSampler,
                       PhasedSampler, SandwichSampler)
from .slimmable_network import SlimmableNetwork, activate

__all__ = [
    'AllDesiredSampler', 'AugmentingDataPreprocessor',
    'BatchRandomResizedCrop', 'ClusterSampler', 'DSPNet', 'FeatureQueue',
    'FixedSampler', 'JointLinearHead', 'PhasedSampler', 'SDR', 'SEED',
    'SEEDHead', 'SandwichSampler', 'SlimCLR', 'SlimCLRMoCoV2', 'SlimCLRMoCoV3',
    'SlimCLRSimCLR', 'SlimResNet', 'SlimmableBatchNorm', 'SlimmableConv2d',
    'SlimmableLayer', 'SlimmableLinear', 'SlimmableNetwork',
    'SlimmableNonLinearNeck', 'SlimmableResNet', 'SupernetAlgorithm', 'US3L',
    'activate'
]
