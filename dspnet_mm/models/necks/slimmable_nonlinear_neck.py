# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Union

from mmselfsup.models.necks import NonLinearNeck
from mmselfsup.registry import MODELS
from torch import nn

from dspnet_mm.models.backbones import build_family
from dspnet_mm.models.layers import (SlimmableBatchNorm, SlimmableLayer,
                                     SlimmableLinear)
from dspnet_mm.models.slimmable_network import (SlimmableNetwork,
                                                slimmable_norm_cfg)
from dspnet_mm.subnet import ResNetFamily, Subnet


@MODELS.register_module()
class SlimmableNonLinearNeck(SlimmableNetwork, NonLinearNeck):
    """MMSelfSup's MLP with slimmable layers: projector and predictor.

    As a projector it takes the features of any sub-network; its output has
    the same size for all of them.

    Args:
        family (dict | ResNetFamily): The family of sub-networks.
        in_channels (int): Channels of the supernet's features.
        switchable_bn (bool): Give each DN batch norm parameters and
            statistics of its own. Defaults to False.
        sync_bn (bool): Take batch statistics over all processes. Defaults to
            True.
        slim_input (bool): Whether the input has the width of the last
            stage: True for a projector, False for a predictor. Defaults to
            True.
        slim_hidden (bool): Give the hidden layers the width of the last
            stage, too, as SlimCLR does (arXiv 2209.15525); US3L does not
            (arXiv 2303.06870). Defaults to False.
        with_hidden_bn (bool): False leaves out the batch norms of the hidden
            layers, as MMSelfSup's MoCoV2Neck does. Defaults to True.
        **kwargs: Further arguments of MMSelfSup's NonLinearNeck, except
            ``norm_cfg``.
    """

    def __init__(self,
                 family: Union[dict, ResNetFamily],
                 in_channels: int,
                 switchable_bn: bool = False,
                 sync_bn: bool = True,
                 slim_input: bool = True,
                 slim_hidden: bool = False,
                 with_hidden_bn: bool = True,
                 **kwargs) -> None:
        family = build_family(family)
        super().__init__(
            in_channels=in_channels,
            norm_cfg=slimmable_norm_cfg(family, switchable_bn, sync_bn),
            **kwargs)
        # NonLinearNeck builds plain linear layers, whatever its config says.
        for name, layer in list(self.named_children()):
            if isinstance(layer, nn.Linear):
                slimmable = SlimmableLinear(
                    layer.in_features,
                    layer.out_features,
                    bias=layer.bias is not None)
                setattr(self, name, slimmable)
        if not with_hidden_bn:
            for name in ['bn0', *self.bn_names[:-1]]:
                setattr(self, name, nn.Identity())
        self.family = family
        self.switchable_bn = switchable_bn
        self.slim_input = slim_input
        self.slim_hidden = slim_hidden
        self.set_active_subnet(family.full)

    def _activate_layers(self, subnet: Subnet) -> None:
        index = self._private_index(subnet)
        width = subnet.widths[-1]
        layers = [
            layer for layer in self.children()
            if isinstance(layer, SlimmableLayer)
        ]
        linears = [
            layer for layer in layers if isinstance(layer, SlimmableLinear)
        ]
        current = linears[0].in_features
        if self.slim_input:
            inner = self.family.active_channels(subnet)[-1]
            current = inner * self.family.expansion
        for layer in layers:
            if isinstance(layer, SlimmableBatchNorm):
                layer.set_active(current, subnet, index)
                continue
            out = layer.out_features
            if self.slim_hidden and layer is not linears[-1]:
                out = max(1, round(width * out))
            layer.set_active(current, out)
            current = out
