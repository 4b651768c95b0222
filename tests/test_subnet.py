# Copyright (c) The dspnet_mm authors. All rights reserved.
import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_family
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.analysis import FlopAnalyzer

from dspnet_mm import InputError, Subnet
from dspnet_mm.slimming import build_plain_backbone, plain_backbone_cfg


def test_a_subnet_is_a_value():
    one = Subnet([1.0, 0.5], [2, 1])
    assert one == Subnet((1.0, 0.5), (2, 1))
    assert hash(one) == hash(Subnet((1.0, 0.5), (2, 1)))
    assert str(one) == 'w1-0.5_d2-1'
    assert str(Subnet((0.5, 0.5), (2, 1))) == 'w0.5_d2-1'
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.widths = (1.0, 1.0)


@pytest.mark.parametrize('widths, depths, allowed', [
    ([0.0, 1.0], [1, 1], r'in \(0, 1\]'),
    ([1.5, 1.0], [1, 1], r'in \(0, 1\]'),
    ([float('nan'), 1.0], [1, 1], r'in \(0, 1\]'),
    (['1', 1.0], [1, 1], r'in \(0, 1\]'),
    ([True, 1.0], [1, 1], r'in \(0, 1\]'),
    ([1.0, 1.0], [0, 1], 'at least 1'),
    ([1.0, 1.0], [1.5, 1], 'at least 1'),
    ([1.0, 1.0], [1], 'one width and one depth for each stage'),
    ([], [], 'one width and one depth for each stage'),
])
def test_a_wrong_subnet_is_refused_naming_the_allowed(widths, depths, allowed):
    with pytest.raises(InputError, match=allowed):
        Subnet(widths, depths)


def test_widths_snap_to_whole_channels():
    family = make_family(base_channels=16)
    subnet = family.subnet(0.3)
    assert subnet.widths == (5 / 16, ) * 4
    assert subnet == family.subnet(0.32)
    assert family.inner_channels(subnet) == (5, 10, 20, 40)
    assert family.channels(family.full) == (16, ) * 4


def test_members_outside_of_the_family_are_refused():
    family = make_family()
    for wrong in (dict(widths=0.1), dict(depths=3), dict(widths=[1, 1, 1]),
                  dict(depths=[1, 1, 1, 0]), dict(widths=0.01)):
        with pytest.raises(InputError) as error:
            family.subnet(**wrong)
        message = str(error.value)
        assert 'allowed' in message or 'smallest' in message
        assert '\n' not in message


def test_names():
    family = make_family()
    assert family['tiny'] == family.subnet(0.25, 1)
    assert family.name_of(family['tiny']) == 'tiny'
    assert family.name_of(family.subnet(0.75)) == 'w0.75_d2-2-2-2'
    assert family.label_of(family.full) == 'large'
    assert family.label_of(family.subnet(0.75)) == 'random'
    with pytest.raises(InputError, match=r"'huge'.*large.*middle.*tiny"):
        family['huge']
    assert family['largest'] == family.full
    assert family['smallest'] == family.smallest


def test_the_shallowest_is_the_widest_of_fewest_blocks():
    family = make_family(desired=[
        dict(name='deep'),
        dict(name='narrow', widths=0.25, depths=1),
        dict(name='wide', widths=0.75, depths=1),
        dict(name='uneven', depths=[2, 1, 1, 1])
    ])
    assert family['shallowest'] == family['wide']


@pytest.mark.parametrize('desired, complaint', [
    ([], 'names no desired network'),
    ([dict(name='../evil')], 'becomes a file name'),
    ([dict(widths=0.5)], 'becomes a file name'),
    ([dict(name='a'), dict(name='a', widths=0.5)], 'is taken'),
    ([dict(name='random')], 'is taken'),
    ([dict(name='a'), dict(name='b')], 'has a name already'),
    ([dict(name='a', width=0.5)], 'unknown keys'),
])
def test_wrong_desired_networks_are_refused(desired, complaint):
    with pytest.raises(InputError, match=complaint):
        make_family(desired=desired)


def test_wrong_architectures_are_refused():
    with pytest.raises(InputError, match='18, 34, 50, 101'):
        make_family(depth=19)
    with pytest.raises(InputError, match="'imagenet' and 'small'"):
        make_family(stem='large')
    with pytest.raises(InputError, match='at least 1'):
        make_family(base_channels=0)


def test_the_space_spans_from_the_smallest_widths_and_depths_to_the_supernet():
    family = make_family(desired=[
        dict(name='wide', depths=1),
        dict(name='deep', widths=[0.5, 0.25, 0.5, 0.5]),
    ])
    assert family.smallest == family.subnet([0.5, 0.25, 0.5, 0.5], 1)
    larger = make_family(min_widths=0.125, min_depths=1)
    assert larger.smallest == larger.subnet(0.125, 1)
    with pytest.raises(InputError, match='outside of the family'):
        make_family(min_widths=0.5)


@pytest.mark.parametrize(
    'depth, params, flops',
    [
        # torchvision's models without their classifiers.
        (18, 11_689_512 - 513_000, 1_814_073_344 - 512_000),
        (50, 25_557_032 - 2_049_000, 4_089_184_256 - 2_048_000),
    ])
def test_costs_of_well_known_networks(depth, params, flops):
    family = make_family(
        depth, base_channels=64, stem='imagenet', input_size=224)
    assert family.params(family.full) == params
    assert family.flops(family.full) == flops


@pytest.mark.parametrize('depth', [18, 34, 50, 101])
@pytest.mark.parametrize('stem', ['small', 'imagenet'])
def test_costs_are_those_of_the_plain_network(depth, stem):
    family = make_family(depth, stem=stem)
    generator = np.random.default_rng(0)
    for subnet in [*family.desired.values(), family.random(generator)]:
        plain = build_plain_backbone(plain_backbone_cfg(family, subnet))
        plain.eval()
        assert family.params(subnet) == sum(p.numel()
                                            for p in plain.parameters())
        counted = FlopAnalyzer(plain, (torch.rand(1, 3, 33, 33), ))
        by_operator = counted.unsupported_ops_warnings(False).by_operator()
        # MMEngine counts batch norms and pooling, too.
        assert family.flops(subnet, 33) == by_operator['conv']


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_search_finds_what_trying_all_finds(data):
    family = make_family(
        base_channels=4,
        desired=[dict(name='full')],
        min_widths=0.5,
        min_depths=1)
    everything = [
        family.subnet([(c + 2) / 4 for c in channels], [d + 1 for d in depths])
        for channels in np.ndindex(3, 3, 3, 3)
        for depths in np.ndindex(2, 2, 2, 2)
    ]
    by_flops = data.draw(st.booleans())
    cost = family.flops if by_flops else family.params
    budget = data.draw(
        st.integers(cost(family.smallest),
                    cost(family.full) - 1))
    found = family.largest_within(
        **{'max_flops' if by_flops else 'max_params': budget})
    best = max(c for c in map(cost, everything) if c <= budget)
    assert cost(found) == best


def test_a_budget_prefers_desired_networks():
    family = make_family()
    just_below = family.flops(family.full) - 1
    assert family.largest_within(max_flops=just_below) == family['middle']
    assert family.largest_within(max_flops=10**12) == family.full
    larger = family.largest_within(max_flops=just_below, desired_first=False)
    assert family.flops(family['middle']) < family.flops(larger) <= just_below


def test_a_budget_that_nothing_fits_names_the_smallest():
    family = make_family()
    with pytest.raises(
            InputError,
            match=rf'{family.smallest}, has {family.params(family.smallest):,}'
    ):
        family.largest_within(max_params=10)
    with pytest.raises(InputError, match='exactly one budget'):
        family.largest_within()


def test_what_is_drawn_above_the_least_is_drawn_evenly():
    family = make_family(
        base_channels=8,
        desired=[
            dict(name='a'),
            dict(name='b', widths=0.5, depths=1),
            dict(name='c', widths=0.25, depths=1)
        ])
    generator = np.random.default_rng(0)
    drawn = [
        family.random(generator, True, family['b']).widths[0]
        for _ in range(500)
    ]
    widths, numbers = np.unique(drawn, return_counts=True)
    assert widths.tolist() == [0.5, 0.625, 0.75, 0.875, 1.]
    # No width has those that were below it: 100 are expected of each.
    assert 70 < min(numbers) and max(numbers) < 130


@pytest.mark.parametrize('uniform', [False, True])
def test_random_members_reach_all_widths_and_depths(uniform):
    family = make_family(
        base_channels=4,
        desired=[dict(name='a'),
                 dict(name='b', widths=0.5, depths=1)])
    generator = np.random.default_rng(0)
    drawn = [family.random(generator, uniform) for _ in range(300)]
    reached = {(s.widths[2], s.depths[1]) for s in drawn}
    assert reached == {(width, depth)
                       for width in (0.5, 0.75, 1.0)
                       for depth in (1, 2)}
    # One width and one depth for all stages, or each stage its own.
    alike = [len({*s.widths}) == len({*s.depths}) == 1 for s in drawn]
    assert all(alike) if uniform else not all(alike)
