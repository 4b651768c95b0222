# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The baselines: what methods build on, by MMSelfSup, on one plain network."""
from dspnet_mm.errors import InputError
from dspnet_mm.slimming import plain_backbone_cfg
from dspnet_mm.subnet import ResNetFamily, Subnet

_ALGORITHMS = dict(DSPNet='BYOL', SlimCLRMoCoV2='MoCo', SlimCLRMoCoV3='MoCoV3')


def alone_cfg(cfg: dict, family: ResNetFamily, subnet: Subnet) -> dict:
    """The config that pre-trains a sub-network's plain network alone.

    All is as in the supernet's config but what makes it a supernet. The
    algorithm is MMSelfSup's that the supernet's builds on. The backbone is the
    toolboxes' ResNet or, where that cannot be, SlimResNet: MMClassification's
    ResNet with a width and depth for each stage.

    Args:
        cfg (dict): The supernet's ``model`` in a training config.
        family (ResNetFamily): The family of sub-networks.
        subnet (Subnet): The sub-network.

    Returns:
        dict: A ``model`` for a training config.
    """
    algorithm = _ALGORITHMS[cfg['type']]
    features = family.out_channels(subnet)[-1]
    neck, head = _plain(cfg['neck'], features), dict(cfg['head'])
    settings = dict(base_momentum=cfg['base_momentum'])
    if 'predictor' in head:
        head['predictor'] = _plain(head['predictor'],
                                   head['predictor']['in_channels'])
    if algorithm == 'MoCo':
        settings = dict(
            queue_len=cfg['queue_size'],
            feat_dim=neck['out_channels'],
            momentum=cfg['base_momentum'])
    return dict(
        type=algorithm,
        backbone=dict(
            plain_backbone_cfg(family, subnet),
            # As the supernet starts; MMSelfSup's ResNet does not by default.
            zero_init_residual=cfg['backbone'].get('zero_init_residual',
                                                   False)),
        neck=neck,
        head=head,
        **settings,
        data_preprocessor=cfg['data_preprocessor'])


def _plain(neck: dict, in_channels: int) -> dict:
    """The config of MMSelfSup's neck for that of a slimmable one.

    Raises:
        InputError: If its hidden layers are to have no batch norm, which
            they always have in MMSelfSup's.
    """
    if not neck.get('with_hidden_bn', True):
        raise InputError("MMSelfSup's NonLinearNeck has no with_hidden_bn="
                         'False: give a config without')
    left_out = ('slim_input', 'slim_hidden', 'with_hidden_bn')
    return dict({key: neck[key]
                 for key in neck if key not in left_out},
                type='NonLinearNeck',
                in_channels=in_channels,
                norm_cfg=dict(type='BN1d'))
