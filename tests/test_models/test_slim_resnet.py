# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Where a stock ResNet can be the same network, SlimResNet behaves as it."""
import pytest
import torch
from mmcls.models.backbones import ResNet

from dspnet_mm.models import SlimResNet

STOCK = dict(depth=18, stem_channels=8, base_channels=8)
OURS = dict(
    block='BasicBlock', inner_channels=[8, 16, 32, 64], depths=[2, 2, 2, 2])
OPTIONS = {
    'defaults':
    dict(),
    'out_indices':
    dict(out_indices=(0, 2)),
    'frozen_stem':
    dict(frozen_stages=0),
    'frozen_stages':
    dict(frozen_stages=2),
    'all_frozen':
    dict(frozen_stages=4),
    'norm_eval':
    dict(norm_eval=True),
    'dilations':
    dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(1, 2, 3)),
    'checkpointing':
    dict(with_cp=True),
}


def pair(options):
    torch.manual_seed(0)
    stock, ours = ResNet(**STOCK, **options), SlimResNet(**OURS, **options)
    # Else batch norm in evaluation changes nothing.
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock, ours


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs, )


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_as_the_stock_resnet(options):
    stock, ours = pair(options)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    frozen = sum(not parameter.requires_grad
                 for parameter in ours.parameters())
    assert (frozen > 0) == ('frozen_stages' in options)
    for mode in (True, False):
        seen = []
        for network in (stock, ours):
            network.train(mode)
            network.zero_grad()
            outputs = as_tuple(network(images))
            sum(output.square().mean() for output in outputs).backward()
            seen.append(
                dict(
                    outputs=[output.detach() for output in outputs],
                    gradients={
                        name: parameter.grad
                        for name, parameter in network.named_parameters()
                    },
                    training={
                        name: module.training
                        for name, module in network.named_modules()
                    },
                    state=dict(network.state_dict())))
        # None, the gradient of what is frozen, included.
        torch.testing.assert_close(seen[1], seen[0])
