# Copyright (c) The dspnet_mm authors. All rights reserved.
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import make_family
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmselfsup.models.backbones import ResNet
from mmselfsup.registry import MODELS

from dspnet_mm import InputError, Subnet
from dspnet_mm.models import SlimmableResNet, activate
from dspnet_mm.slimming import slim


def parameters_of(family, subnet, backbone):
    """Which entries of each parameter belong to a sub-network."""
    masks = {}
    with activate(subnet, backbone):
        for name, layer in backbone.active_layers().items():
            for key, parameter in layer.named_parameters():
                mask = torch.zeros_like(parameter, dtype=torch.bool)
                mask[tuple(slice(n)
                           for n in layer.plain_state()[key].shape)] = True
                masks[f'{name}.{key}'] = mask
    return masks


@pytest.mark.parametrize('depth', [18, 50])
def test_gradients_touch_the_active_slice_and_nothing_else(depth):
    torch.manual_seed(0)
    family = make_family(depth)
    backbone = SlimmableResNet(family)
    subnet = family['middle']
    with activate(subnet, backbone):
        backbone(torch.rand(4, 3, 16, 16))[-1].square().sum().backward()
    masks = parameters_of(family, subnet, backbone)
    for name, parameter in backbone.named_parameters():
        if name not in masks:
            assert parameter.grad is None, name
            continue
        assert parameter.grad[~masks[name]].abs().sum() == 0, name
        assert parameter.grad[masks[name]].abs().sum() > 0, name
    assert sum(int(mask.sum())
               for mask in masks.values()) == family.params(subnet)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('mixed', [False, True])
def test_gradients_are_those_of_the_plain_network(with_cp, mixed):
    """Where the supernet has gradients already, as in a training step."""
    torch.manual_seed(0)
    family = make_family(50)
    backbone = SlimmableResNet(family, with_cp=with_cp)

    def train(network):
        images = torch.rand(4, 3, 32, 32)
        with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
            output = network(images)[-1]
        output.float().square().mean().backward()

    train(backbone)
    for subnet in family.desired.values():
        plain = slim(backbone, subnet)
        plain.train()
        before = {n: p.grad.clone() for n, p in backbone.named_parameters()}
        for network in (plain, backbone):
            torch.manual_seed(1)
            with activate(subnet, backbone):
                train(network)
        expected = dict(plain.named_parameters())
        for name, parameter in backbone.named_parameters():
            added = parameter.grad - before[name]
            if name in expected:
                grad = expected[name].grad
                part = added[tuple(map(slice, grad.shape))]
                scale = grad.abs().max()
                assert (part - grad).abs().max() <= 1e-3 * scale, name
                part.zero_()
            assert added.abs().max() == 0, name


@pytest.mark.parametrize('depth', [18, 34, 50, 101])
def test_the_full_network_is_mmselfsups_resnet(depth):
    torch.manual_seed(0)
    family = make_family(depth, stem='imagenet')
    backbone = SlimmableResNet(family, out_indices=(0, 1, 2, 3, 4))
    upstream = ResNet(
        depth,
        stem_channels=8,
        base_channels=8,
        norm_cfg=dict(type='BN', track_running_stats=False),
        out_indices=(0, 1, 2, 3, 4))
    # Same names, same shapes, same outputs.
    upstream.load_state_dict(backbone.state_dict(), strict=True)
    images = torch.rand(2, 3, 40, 40)
    for ours, theirs in zip(backbone(images), upstream(images)):
        assert torch.equal(ours, theirs)


def test_it_is_registered_and_takes_its_family_as_a_config():
    backbone = MODELS.build(
        dict(
            type='SlimmableResNet',
            family=dict(depth=18, desired=[dict(name='all')])))
    assert isinstance(backbone, SlimmableResNet)
    assert backbone.family.base_channels == 64


def test_what_was_active_is_active_again_also_after_an_exception():
    family = make_family()
    backbone = SlimmableResNet(family)
    assert backbone.active_subnet == family.full
    with pytest.raises(ZeroDivisionError):
        with activate(family['tiny'], backbone):
            with activate(family['middle'], backbone):
                assert backbone.conv1.active_out == 4
            assert backbone.conv1.active_out == 2
            1 / 0
    assert backbone.active_subnet == family.full
    assert backbone.conv1.active_out == 8
    assert backbone.layer4.active_depth == 2
    assert backbone.layer4[1].conv1.active_in == 64


def test_what_fails_half_way_is_taken_back():
    family = make_family()
    backbone = SlimmableResNet(family)
    with mock.patch.object(
            backbone.layer4[0].conv2, 'set_active', side_effect=MemoryError):
        with pytest.raises(MemoryError):
            backbone.set_active_subnet(family['tiny'])
    assert backbone.conv1.active_out == 2
    # Else the whole would count as active already.
    backbone.set_active_subnet(family.full)
    assert backbone.conv1.active_out == 8


@pytest.mark.parametrize('widths, depths', [
    ((0.5, 0.04, 1, 1), (2, 2, 2, 2)),
    ((1, 1, 1, 1), (9, 9, 9, 9)),
    ((1, 1, 1, 1, 1), (2, 2, 2, 2, 2)),
])
def test_members_of_other_families_are_refused(widths, depths):
    backbone = SlimmableResNet(make_family())
    with pytest.raises(InputError, match='outside of the family'):
        with activate(Subnet(widths, depths), backbone):
            pass
    assert backbone.active_subnet == backbone.family.full
    assert backbone.conv1.active_out == 8


@pytest.mark.parametrize('depth, last', [(18, 'norm2'), (50, 'norm3')])
@pytest.mark.parametrize('switchable', [False, True])
@pytest.mark.parametrize('as_identity', [False, True])
def test_blocks_of_all_subnets_start_as_the_identity(depth, last, switchable,
                                                     as_identity):
    family = make_family(depth)
    backbone = SlimmableResNet(
        family, switchable_bn=switchable, zero_init_residual=as_identity)
    backbone.init_weights()
    for subnet in family.desired.values():
        plain = slim(backbone, subnet)
        blocks = [
            block for name in plain.res_layers
            for block in getattr(plain, name)
        ]
        assert len(blocks) == sum(subnet.depths)
        for block in blocks:
            assert torch.all(block.norm1.weight == 1)
            assert torch.all(getattr(block, last).weight == (not as_identity))


def test_weights_that_are_loaded_do_not_start_as_the_identity(tmp_path):
    path = str(tmp_path / 'weights.pth')
    trained = SlimmableResNet(make_family())
    torch.save(dict(state_dict=trained.state_dict()), path)
    backbone = SlimmableResNet(
        make_family(),
        zero_init_residual=True,
        init_cfg=dict(type='Pretrained', checkpoint=path))
    backbone.init_weights()
    for name, weight in trained.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], weight), name


@pytest.mark.parametrize('convert',
                         [revert_sync_batchnorm, convert_sync_batchnorm])
def test_conversions_of_sync_bn_keep_a_supernets_slimming(convert):
    family = make_family()
    backbone = convert(SlimmableResNet(family))
    images = torch.rand(4, 3, 16, 16)
    with activate(family['tiny'], backbone):
        output = backbone(images)[-1]
    plain = slim(backbone, family['tiny'])
    plain.train()
    assert output.shape[1] == 16
    assert torch.equal(output, plain(images)[-1])


def test_checkpointed_activations_give_the_same_gradients():
    family = make_family()
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = SlimmableResNet(family, with_cp=with_cp)
        images = torch.rand(4, 3, 16, 16)
        with activate(family['middle'], backbone):
            backbone(images)[-1].square().sum().backward()
        gradients.append(backbone.layer4[0].conv1.weight.grad)
    assert torch.allclose(*gradients)


def test_switchable_batch_norm_is_for_desired_networks():
    family = make_family()
    backbone = SlimmableResNet(family, switchable_bn=True)
    with activate(family['tiny'], backbone):
        assert backbone.bn1.private_index == 2
    with pytest.raises(InputError, match='large.*middle.*tiny'):
        with activate(family.subnet(0.75), backbone):
            pass
    assert backbone.active_subnet == family.full


def test_random_members_run():
    family = make_family(50)
    backbone = SlimmableResNet(family)
    generator = np.random.default_rng(0)
    for _ in range(5):
        subnet = family.random(generator)
        with activate(subnet, backbone):
            output, = backbone(torch.rand(2, 3, 16, 16))
        assert output.shape[1] == family.out_channels(subnet)[-1]
