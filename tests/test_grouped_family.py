# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest
import torch

from dspnet_mm import GroupedResNetFamily, InputError, ResNetFamily
from dspnet_mm.channels import Channels
from dspnet_mm.models import SlimmableNonLinearNeck, SlimmableResNet, activate
from dspnet_mm.slimming import plain_backbone_cfg, recalibrate, slim


def make_grouped(**kwargs):
    settings = dict(
        depth=18,
        base_channels=8,
        shared_channels=4,
        num_groups=2,
        stem='small',
        input_size=12)
    settings.update(kwargs)
    return GroupedResNetFamily(**settings)


def test_each_cluster_has_a_subnet_of_one_size():
    family = make_grouped()
    assert [*family.desired] == [f'cluster-{n:02d}' for n in range(16)]
    assert len({subnet.groups for subnet in family.desired.values()}) == 16
    assert {subnet.widths
            for subnet in family.desired.values()} == {(0.75, ) * 4}
    # The last stage's group comes first.
    assert family['cluster-08'].groups == (0, 0, 0, 1)
    assert family.subnet_of(11).groups == (1, 1, 0, 1)
    assert str(family.subnet_of(11)) == 'w0.75_d2-2-2-2_g1-1-0-1'
    assert family.label_of(family.full) == 'largest'
    # What clusters have in common while they differ in fewer stages.
    assert [family.subnet_of(11, levels).groups for levels in range(5)
            ] == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 1, 0, 1),
                  (1, 1, 0, 1)]


def test_channels_are_the_shared_ones_and_a_group():
    family = make_grouped()
    assert family.active_channels(family.full) == (8, 16, 32, 64)
    assert family.active_channels(family.subnet_of(0)) == (6, 12, 24, 48)
    assert family.active_channels(family.subnet_of(8))[2:] == (24,
                                                               Channels(
                                                                   ((0, 32),
                                                                    (48, 64))))


def test_costs_are_those_of_a_plain_network_of_that_width():
    family = make_grouped()
    plain = ResNetFamily(
        depth=18,
        base_channels=6,
        desired=[dict(name='one')],
        stem='small',
        input_size=12)
    subnet = family.subnet_of(5)
    assert family.params(subnet) == plain.params(plain.full)
    assert family.flops(subnet) == plain.flops(plain.full)
    assert family.inner_channels(subnet) == plain.inner_channels(plain.full)
    assert plain_backbone_cfg(family,
                              subnet) == plain_backbone_cfg(plain, plain.full)


def test_fewer_levels_leave_early_stages_in_common():
    family = make_grouped(num_groups=4, levels=2)
    assert family.num_clusters == 16
    assert {subnet.groups[:2]
            for subnet in family.desired.values()} == {(0, 0)}


@pytest.mark.parametrize('depth', [18, 50])
def test_a_slimmed_subnet_computes_what_the_active_one_does(depth):
    torch.manual_seed(0)
    family = make_grouped(depth=depth)
    backbone = SlimmableResNet(family)
    images = torch.rand(4, 3, 12, 12)
    outputs = []
    for cluster in (0, 5, 14):
        subnet = family.subnet_of(cluster)
        with activate(subnet, backbone):
            recalibrate(backbone, [images])
            backbone.eval()
            expected, = backbone(images)
            plain = slim(backbone, subnet)
        output = plain(images)[-1]
        assert torch.allclose(output, expected, atol=1e-5)
        outputs.append(output)
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize('depth', [18, 50])
def test_other_groups_learn_nothing(depth):
    torch.manual_seed(0)
    family = make_grouped(depth=depth)
    backbone = SlimmableResNet(family)
    features = family.out_channels(family.full)[-1]
    neck = SlimmableNonLinearNeck(
        family, features, hid_channels=8, out_channels=4)
    subnet = family.subnet_of(10)
    assert subnet.groups == (0, 1, 0, 1)
    with activate(subnet, backbone, neck):
        neck(backbone(torch.rand(4, 3, 12, 12)))[0].square().sum().backward()
    last = backbone.layer4[1].conv1.weight.grad.flatten(2).abs().sum(2)
    used = torch.zeros(64, dtype=torch.bool)
    used[:32] = used[48:] = True
    of_input = used.repeat_interleave(features // 64)
    assert torch.equal(last > 0, used[:, None] & of_input[None])
    assert torch.equal(neck.fc0.weight.grad.abs().sum(0) > 0, of_input)
    assert torch.equal(
        backbone.conv1.weight.grad.flatten(1).abs().sum(1) > 0,
        torch.arange(8) < 6)


def test_a_budget_gives_desired_networks():
    family = make_grouped()
    cost = family.flops(family.subnet_of(0))
    assert family.largest_within(max_flops=cost) in family.desired.values()
    assert family.largest_within(
        max_flops=cost, desired_first=False) in family.desired.values()
    with pytest.raises(InputError, match='fits into'):
        family.largest_within(max_flops=cost - 1)


@pytest.mark.parametrize('settings, complaint', [
    (dict(shared_channels=0), 'shared_channels=0.*1 to 7'),
    (dict(shared_channels=8), 'shared_channels=8.*1 to 7'),
    (dict(num_groups=1), 'num_groups=1.*at least 2'),
    (dict(num_groups=3), 'num_groups=3.*equal groups'),
    (dict(levels=5), 'levels=5.*1 to 4'),
    (dict(min_widths=0.5), 'min_widths.*leave it out'),
    (dict(depth=19), 'depth 19 is not a ResNet'),
])
def test_a_wrong_family_is_refused(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        make_grouped(**settings)


@pytest.mark.parametrize('ask, complaint', [
    (lambda family: family.subnet(0.5), 'cluster-00 to cluster-15'),
    (lambda family: family.subnet(depths=1), 'cluster-00 to cluster-15'),
    (lambda family: family.subnet(groups=(0, 0, 0, 2)), 'group 2.*has 2'),
    (lambda family: family.subnet(groups=(0, -1, 0, 0)), 'group -1'),
    (lambda family: family.subnet(groups=()), 'cluster-00 to cluster-15'),
    (lambda family: family.subnet(groups=(0, 0)), '2 groups and 4 depths'),
    (lambda family: family.subnet_of(16), 'cluster 16.*16'),
    (lambda family: family['cluster-16'], 'no desired network.*unified'),
])
def test_what_is_no_member_is_refused(ask, complaint):
    with pytest.raises(InputError, match=complaint):
        ask(make_grouped())


@pytest.mark.parametrize('depth', [18, 50])
def test_a_copied_subnet_computes_the_same(depth):
    torch.manual_seed(0)
    family = make_grouped(depth=depth)
    backbone = SlimmableResNet(family)
    one, other = family.subnet_of(3), family.subnet_of(13)
    # The shared channels are the same in both: nothing changes in the first.
    with activate(one, backbone):
        before = [tensor.clone() for tensor in backbone.active_weights()]
    backbone.copy_subnet(one, other)
    images = torch.rand(4, 3, 12, 12)
    outputs = []
    for subnet in (one, other):
        with activate(subnet, backbone):
            outputs += backbone(images)
            weights = backbone.active_weights()
        assert all(map(torch.equal, weights, before))
    assert torch.equal(*outputs)


def test_the_first_groups_weights_are_views():
    family = make_grouped()
    backbone = SlimmableResNet(family)
    with activate(family.subnet_of(0), backbone):
        for tensor in backbone.active_weights():
            tensor.zero_()
    with activate(family.subnet_of(15), backbone):
        used, other = backbone.conv1.weight, backbone.bn1.weight
    assert not used[:6].any() and used[6:].all()
    assert not other[:6].any() and other[6:].all()
