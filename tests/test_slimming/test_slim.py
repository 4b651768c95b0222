# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest
import torch
from conftest import TOOLBOXES, make_family, toolbox_models
from hypothesis import given, settings
from hypothesis import strategies as st

from dspnet_mm.models import SlimmableResNet, activate
from dspnet_mm.slimming import plain_backbone_cfg, recalibrate, slim


def assert_equal_networks(backbone, subnet):
    images = torch.rand(6, 3, 16, 16)
    plain = None
    with activate(subnet, backbone):
        recalibrate(backbone, images.split(4))
        plain = slim(backbone, subnet)
        for training in (False, True):
            active = backbone.train(training)(images)[-1]
            plain.train(training)
            assert torch.allclose(active, plain(images)[-1], atol=1e-5)
    return plain


@pytest.mark.parametrize('switchable_bn', [False, True])
@pytest.mark.parametrize('stem', ['small', 'imagenet'])
@pytest.mark.parametrize('depth', [18, 34, 50, 101])
def test_desired_networks_and_their_exports_agree(depth, stem, switchable_bn):
    torch.manual_seed(0)
    family = make_family(depth, stem=stem)
    backbone = SlimmableResNet(family, switchable_bn=switchable_bn)
    for subnet in family.desired.values():
        assert_equal_networks(backbone, subnet)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_subnetworks_of_random_families_and_exports_agree(data):
    depth = data.draw(st.sampled_from([18, 34, 50]))
    base_channels = data.draw(st.integers(2, 8))
    family = make_family(
        depth,
        base_channels=base_channels,
        stem=data.draw(st.sampled_from(['small', 'imagenet'])),
        desired=[dict(name='full')],
        min_widths=1 / base_channels,
        min_depths=1)
    subnet = family.subnet([
        data.draw(st.integers(1, base_channels)) / base_channels
        for _ in range(4)
    ], [data.draw(st.integers(1, high)) for high in family.full_depths])
    torch.manual_seed(data.draw(st.integers(0, 9)))
    assert_equal_networks(SlimmableResNet(family), subnet)


def test_a_plain_network_owns_its_tensors():
    family = make_family()
    backbone = SlimmableResNet(family)
    plain = slim(backbone, family['tiny'])
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1)
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, before[key])
        # No view into the supernet: a file would hold all of it.
        assert tensor.untyped_storage().nbytes() == \
            tensor.numel() * tensor.element_size()


def test_slimming_draws_no_random_numbers():
    backbone = SlimmableResNet(make_family())
    before = torch.get_rng_state()
    slim(backbone, backbone.family['tiny'])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('depth, widths, depths, stem, stock', [
    (18, 0.5, None, 'imagenet', 18),
    (34, 0.5, 2 * [2, 2], 'imagenet', 18),
    (50, 0.25, None, 'imagenet', 50),
    (101, 0.75, [3, 4, 6, 3], 'imagenet', 50),
    (50, [0.5, 0.5, 0.5, 1], None, 'imagenet', None),
    (50, 0.5, [2, 4, 6, 3], 'imagenet', None),
    (18, 0.5, None, 'small', None),
])
def test_a_stock_resnet_is_used_where_one_fits(depth, widths, depths, stem,
                                               stock):
    family = make_family(
        depth,
        stem=stem,
        desired=[dict(name='full')],
        min_widths=0.25,
        min_depths=1)
    cfg = plain_backbone_cfg(family, family.subnet(widths, depths))
    assert cfg.get('depth') == stock
    assert cfg['type'] == ('SlimResNet' if stock is None else 'ResNet')


@pytest.mark.parametrize('toolbox', TOOLBOXES)
@pytest.mark.parametrize('stem', ['small', 'imagenet'])
@pytest.mark.parametrize('depth', [18, 50])
def test_the_toolboxes_build_and_load_it_strictly(toolbox, stem, depth):
    torch.manual_seed(0)
    family = make_family(depth, stem=stem)
    backbone = SlimmableResNet(family)
    images = torch.rand(2, 3, 32, 32)
    for subnet in family.desired.values():
        plain = slim(backbone, subnet)
        built = toolbox_models(toolbox).build(
            dict(plain_backbone_cfg(family, subnet), out_indices=(0, 1, 2, 3)))
        built.load_state_dict(plain.state_dict(), strict=True)
        built.eval()
        outputs = built(images)
        assert [o.shape[1]
                for o in outputs] == list(family.out_channels(subnet))
        assert torch.allclose(outputs[-1], plain(images)[-1], atol=1e-5)


@pytest.mark.needs('mmseg', 'mmcv.ops')
def test_a_dilated_network_loads_even_where_stages_are_equally_wide():
    family = make_family(
        18,
        stem='imagenet',
        desired=[
            dict(name='full'),
            dict(name='equal', widths=[1, 0.5, 0.25, 0.125])
        ])
    backbone = SlimmableResNet(family)
    cfg = plain_backbone_cfg(family, family['equal'])
    assert cfg['inner_channels'] == [8, 8, 8, 8]
    dilated = toolbox_models('mmseg').build(
        dict(cfg, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))
    dilated.load_state_dict(
        slim(backbone, family['equal']).state_dict(), strict=True)
    assert dilated(torch.rand(2, 3, 32, 32))[-1].shape == (2, 8, 4, 4)
