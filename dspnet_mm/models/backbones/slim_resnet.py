# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Sequence

from mmcls.models.backbones.resnet import (BasicBlock, Bottleneck, ResLayer,
                                           ResNet)
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from .resnet_extension import ResNetExtension


# In the root registry, where MMClassification, MMDetection and
# MMSegmentation all find it.
@MODELS.register_module()
class SlimResNet(ResNetExtension, ResNet):
    """A plain ResNet, each stage with its own width and depth.

    For exported sub-networks that no stock ResNet describes. Parameters are
    named as in OpenMMLab's ResNet.

    Args:
        block (str): 'BasicBlock' or 'Bottleneck'.
        inner_channels (Sequence[int]): Channels inside the blocks of each
            stage; a bottleneck puts out four times as many. The stem has the
            first stage's.
        depths (Sequence[int]): Blocks of each stage.
        stem (str): 'imagenet' or 'small', see :class:`ResNetFamily`.
            Defaults to 'imagenet'.
        **kwargs: Further arguments of MMClassification's ResNet, e.g.
            ``in_channels``, ``out_indices`` (from 0 for the first stage),
            ``strides``, ``dilations``, ``frozen_stages``, ``norm_cfg``,
            ``norm_eval``, ``with_cp`` and ``init_cfg``.
    """

    def __init__(self,
                 block: str,
                 inner_channels: Sequence[int],
                 depths: Sequence[int],
                 stem: str = 'imagenet',
                 **kwargs) -> None:
        # The ResNet's constructor looks these up.
        self.stem = stem
        self.inner_channels = tuple(inner_channels)
        block_type = {
            'BasicBlock': BasicBlock,
            'Bottleneck': Bottleneck
        }[block]
        self.arch_settings = {'slim': (block_type, tuple(depths))}
        super().__init__(
            depth='slim',
            num_stages=len(self.inner_channels),
            stem_channels=self.inner_channels[0],
            base_channels=self.inner_channels[0],
            **kwargs)

    def make_res_layer(self, **kwargs) -> ResLayer:
        stage = len(self.res_layers)
        expansion = kwargs['expansion']
        out_channels = self.inner_channels[stage] * expansion
        in_channels = self.inner_channels[0] if stage == 0 else \
            self.inner_channels[stage - 1] * expansion
        kwargs.update(in_channels=in_channels, out_channels=out_channels)
        layer = super().make_res_layer(**kwargs)
        if stage > 0 and layer[0].downsample is None:
            # The supernet has a downsampling convolution there. A stage
            # without stride, as dilated ones are, would omit it where two
            # stages happen to be equally wide.
            layer[0].downsample = nn.Sequential(
                build_conv_layer(
                    self.conv_cfg,
                    in_channels,
                    out_channels,
                    kernel_size=1,
                    bias=False),
                build_norm_layer(self.norm_cfg, out_channels)[1])
        return layer
