# Copyright (c) The dspnet_mm authors. All rights reserved.
from .base import SupernetAlgorithm
from .dspnet import DSPNet
from .sdr import SDR
from .seed import SEED
from .slimclr import SlimCLR, SlimCLRMoCoV2, SlimCLRMoCoV3, SlimCLRSimCLR
from .us3l import US3L

__all__ = [
    'DSPNet', 'SDR', 'SEED', 'SlimCLR', 'SlimCLRMoCoV2', 'SlimCLRMoCoV3',
    'SlimCLRSimCLR', 'SupernetAlgorithm', 'US3L'
]
