# Copyright (c) The dspnet_mm authors. All rights reserved.
from mmcv.cnn import build_conv_layer
from torch import nn


class ResNetExtension:
    """What our ResNets have beyond MMClassification's: a choice of stems.

    Goes before the ResNet among the bases of a class, which sets ``stem``
    before it calls the ResNet's constructor: 'imagenet' for the ResNet's
    own, 'small' for a 3x3 convolution without stride and pooling (as in
    ResNets for CIFAR-10, arXiv 1512.03385, section 4.2).
    """
    stem: str

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        if self.stem == 'small':
            self.conv1 = build_conv_layer(
                self.conv_cfg,
                in_channels,
                stem_channels,
                kernel_size=3,
                padding=1,
                bias=False)
            self.maxpool = nn.Identity()

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode and return the network.

        MMClassification's ResNet returns nothing, so that ``network.eval()``
        is None.
        """
        super().train(mode)
        return self
