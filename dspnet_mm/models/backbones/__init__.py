# Copyright (c) The dspnet_mm authors. All rights reserved.
from .slim_resnet import SlimResNet
from .slimmable_resnet import SlimmableResNet, build_family

__all__ = ['SlimResNet', 'SlimmableResNet', 'build_family']
