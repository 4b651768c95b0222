# Copyright (c) The dspnet_mm authors. All rights reserved.
from .base import SupernetAlgorithm
from .dspnet import DSPNet

__all__ = ['DSPNet', 'SupernetAlgorithm']
