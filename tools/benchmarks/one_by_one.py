# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The baseline: MMSelfSup's own BYOL on one plain network."""
from dspnet_mm.slimming import plain_backbone_cfg
from dspnet_mm.subnet import ResNetFamily, Subnet


def byol_cfg(cfg: dict, family: ResNetFamily, subnet: Subnet) -> dict:
    """The config that pre-trains a sub-network's plain network by BYOL.

    All is as in the supernet's config but what makes it a supernet. Its
    backbone is the toolboxes' ResNet or, where that cannot be, SlimResNet:
    MMClassification's ResNet with a width and depth for each stage.

    Args:
        cfg (dict): The supernet's ``model`` in a training config.
        family (ResNetFamily): The family of sub-networks.
        subnet (Subnet): The sub-network.

    Returns:
        dict: A ``model`` for a training config.
    """

    def plain(neck: dict, in_channels: int) -> dict:
        left_out = ('slim_input', 'slim_hidden')
        return dict({key: neck[key]
                     for key in neck if key not in left_out},
                    type='NonLinearNeck',
                    in_channels=in_channels,
                    norm_cfg=dict(type='BN1d'))

    predictor = cfg['head']['predictor']
    return dict(
        type='BYOL',
        backbone=dict(
            plain_backbone_cfg(family, subnet),
            # As the supernet starts; MMSelfSup's ResNet does not by default.
            zero_init_residual=cfg['backbone'].get('zero_init_residual',
                                                   False)),
        neck=plain(cfg['neck'],
                   family.out_channels(subnet)[-1]),
        head=dict(
            cfg['head'], predictor=plain(predictor, predictor['in_channels'])),
        base_momentum=cfg['base_momentum'],
        data_preprocessor=cfg['data_preprocessor'])
