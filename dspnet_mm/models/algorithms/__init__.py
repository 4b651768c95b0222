# Copyright (c) The dspnet_mm authors. All rights reserved.
from .base import SupernetAlgorithm
from .dspnet import DSPNet
from .seed import SEED

__all__ = ['DSPNet', 'SEED', 'SupernetAlgorithm']
