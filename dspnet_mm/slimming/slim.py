# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmcls.models.backbones import ResNet
from mmcls.registry import MODELS
from torch import nn

from dspnet_mm.models.backbones import SlimmableResNet
from dspnet_mm.models.slimmable_network import activate
from dspnet_mm.subnet import ResNetFamily, Subnet


def plain_backbone_cfg(family: ResNetFamily, subnet: Subnet) -> dict:
    """The config of a sub-network as a plain network.

    Args:
        family (ResNetFamily): The family of sub-networks.
        subnet (Subnet): The sub-network.

    Returns:
        dict: For the stock ResNet of MMClassification, MMDetection and
        MMSegmentation wherever one describes the sub-network, else for
        :class:`SlimResNet`. ``out_indices`` are each toolbox's default.
    """
    channels = family.channels(subnet)
    stock = {arch: depth for depth, arch in ResNet.arch_settings.items()}
    depth = stock.get((family.block, subnet.depths))
    other = {} if family.in_channels == 3 else dict(
        in_channels=family.in_channels)
    if depth and family.stem == 'imagenet' and len(set(channels)) == 1:
        return dict(
            type='ResNet',
            depth=depth,
            stem_channels=channels[0],
            base_channels=channels[0],
            **other)
    return dict(
        type='SlimResNet',
        block=family.block.__name__,
        inner_channels=list(family.inner_channels(subnet)),
        depths=list(subnet.depths),
        stem=family.stem,
        **other)


def build_plain_backbone(cfg: dict) -> nn.Module:
    """Build a plain backbone as MMClassification does.

    Args:
        cfg (dict): As from :func:`plain_backbone_cfg`.

    Returns:
        nn.Module: The backbone; the state of PyTorch's random generator is
        as before.
    """
    with torch.random.fork_rng(devices=[]):
        # Else the current scope decides, and MMSelfSup's own ResNet counts
        # its stages from 1.
        return MODELS.build(dict(cfg, _scope_='mmcls'))


def slim(backbone: SlimmableResNet, subnet: Subnet) -> nn.Module:
    """Cut a sub-network out as a plain network.

    Args:
        backbone (SlimmableResNet): The supernet's backbone.
        subnet (Subnet): The sub-network.

    Returns:
        nn.Module: A plain network with tensors of its own, in evaluation
        mode, on the CPU. Its batch norm statistics are those that the
        supernet holds for the sub-network; where it holds none they are to
        be recalibrated.
    """
    plain = build_plain_backbone(plain_backbone_cfg(backbone.family, subnet))
    with activate(subnet, backbone):
        plain.load_state_dict(backbone.plain_state(), strict=True)
    # MMClassification's ResNet.train returns nothing, so eval() does too.
    plain.eval()
    return plain
