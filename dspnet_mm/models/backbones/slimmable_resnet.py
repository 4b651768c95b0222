# Copyright (c) The dspnet_mm authors. All rights reserved.
from itertools import islice
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Union

import torch
from mmcls.models.backbones.resnet import ResLayer
from mmselfsup.models.backbones import ResNet
from mmselfsup.registry import MODELS, TASK_UTILS
from torch import nn

from dspnet_mm.errors import InputError
from dspnet_mm.models.layers import SlimmableLayer
from dspnet_mm.models.slimmable_network import (SlimmableNetwork, activate,
                                                slimmable_norm_cfg)
from dspnet_mm.subnet import ResNetFamily, Subnet
from .resnet_extension import ResNetExtension


class SlimmableResLayer(ResLayer):
    """A stage that computes with its first blocks only."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.active_depth = len(self)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the active blocks."""
        for block in self.active_blocks():
            inputs = block(inputs)
        return inputs

    def active_blocks(self) -> Iterator[nn.Module]:
        """The blocks that it computes with."""
        return islice(self, self.active_depth)

    def dropped_blocks(self) -> Iterator[nn.Module]:
        """The blocks that it leaves out."""
        return islice(self, self.active_depth, None)


@MODELS.register_module()
class SlimmableResNet(ResNetExtension, SlimmableNetwork, ResNet):
    """MMSelfSup's ResNet with slimmable layers: the supernet's backbone.

    Args:
        family (dict | ResNetFamily): The family of sub-networks, see
            :class:`ResNetFamily`.
        switchable_bn (bool): Give each DN batch norm parameters and
            statistics of its own. Defaults to False.
        sync_bn (bool): Take batch statistics over all processes. Defaults to
            True.
        out_indices (Sequence[int]): Which outputs to return: 0 for the stem,
            i for stage i. Defaults to (4, ).
        with_cp (bool): Save memory by computing activations again in the
            backward pass. Defaults to False.
        zero_init_residual (bool): Let blocks start as the identity, in all
            sub-networks. Defaults to False, as in MMSelfSup.
        init_cfg (dict | list[dict], optional): How to initialise. Defaults
            to None, the ResNet's own.
    """

    def __init__(self,
                 family: Union[dict, ResNetFamily],
                 switchable_bn: bool = False,
                 sync_bn: bool = True,
                 out_indices: Sequence[int] = (4, ),
                 with_cp: bool = False,
                 zero_init_residual: bool = False,
                 init_cfg: Optional[Union[dict, list]] = None) -> None:
        family = build_family(family)
        # The ResNet's constructor builds the stem by it.
        self.stem = family.stem
        super().__init__(
            depth=family.depth,
            in_channels=family.in_channels,
            stem_channels=family.base_channels,
            base_channels=family.base_channels,
            out_indices=out_indices,
            conv_cfg=dict(type='SlimmableConv2d'),
            norm_cfg=slimmable_norm_cfg(family, switchable_bn, sync_bn),
            with_cp=with_cp,
            **({} if init_cfg is None else dict(init_cfg=init_cfg)))
        self.family = family
        self.switchable_bn = switchable_bn
        # By another name than the ResNet's, which knows nothing of batch
        # norms with several scales.
        self.starts_as_identity = zero_init_residual
        self.set_active_subnet(family.full)

    def make_res_layer(self, **kwargs) -> SlimmableResLayer:
        return SlimmableResLayer(**kwargs)

    def init_weights(self) -> None:
        """Initialise, but for weights that ``init_cfg`` loads."""
        super().init_weights()
        loaded = isinstance(self.init_cfg,
                            dict) and self.init_cfg['type'] == 'Pretrained'
        if self.starts_as_identity and not loaded:
            for name in self.res_layers:
                self._start_as_identity(getattr(self, name))

    def _start_as_identity(self, blocks: Iterable[nn.Module]) -> None:
        for block in blocks:
            last = block.norm2 if self.family.expansion == 1 else block.norm3
            last.start_at_zero()

    def _activate_layers(self, subnet: Subnet) -> None:
        index = self._private_index(subnet)
        inner_channels = self.family.active_channels(subnet)
        current = inner_channels[0]
        self.conv1.set_active(self.family.in_channels, current)
        self.norm1.set_active(current, subnet, index)
        for name, inner, depth in zip(self.res_layers, inner_channels,
                                      subnet.depths):
            stage = getattr(self, name)
            stage.active_depth = depth
            out = inner * self.family.expansion
            for block in stage.active_blocks():
                block.conv1.set_active(current, inner)
                block.norm1.set_active(inner, subnet, index)
                if self.family.expansion == 1:
                    block.conv2.set_active(inner, out)
                    block.norm2.set_active(out, subnet, index)
                else:
                    block.conv2.set_active(inner, inner)
                    block.norm2.set_active(inner, subnet, index)
                    block.conv3.set_active(inner, out)
                    block.norm3.set_active(out, subnet, index)
                if block.downsample is not None:
                    conv, norm = block.downsample
                    conv.set_active(current, out)
                    norm.set_active(out, subnet, index)
                current = out

    def start_as(self, subnet: Subnet) -> None:
        """See :meth:`SlimmableNetwork.start_as`.

        Blocks that the sub-network lacks begin as the identity.
        """
        super().start_as(subnet)
        with activate(subnet, self):
            for name in self.res_layers:
                self._start_as_identity(getattr(self, name).dropped_blocks())

    @property
    def stages(self) -> List[nn.Module]:
        """The stem and the stages: one behind the other, they are forward."""
        stem = nn.Sequential(self.conv1, self.norm1, self.relu, self.maxpool)
        return [stem, *(getattr(self, name) for name in self.res_layers)]

    def active_layers(self) -> Dict[str, SlimmableLayer]:
        """See :meth:`SlimmableNetwork.active_layers`."""
        dropped = tuple(
            f'{name}.{index}.' for name in self.res_layers for index in range(
                getattr(self, name).active_depth, len(getattr(self, name))))
        return {
            name: layer
            for name, layer in super().active_layers().items()
            if not name.startswith(dropped)
        }


def build_family(family: Union[dict, ResNetFamily]) -> ResNetFamily:
    """Make a family of its config; a family is returned as it is.

    Raises:
        InputError: If a value is not allowed, or an argument unknown.
    """
    if not isinstance(family, dict):
        return family
    try:
        return TASK_UTILS.build({'type': 'ResNetFamily', **family})
    except TypeError as error:
        reason = str(error).strip().split('\n')[0]
        raise InputError(f'the family {family} cannot be built ({reason}): '
                         'its arguments are those of ResNetFamily')
