# Copyright (c) The dspnet_mm authors. All rights reserved.
import subprocess
import sys

import pytest
from conftest import make_family

from dspnet_mm import InputError
from dspnet_mm.grouped_family import GroupedResNetFamily
from dspnet_mm.models import (AllDesiredSampler, FixedSampler, PhasedSampler,
                              SandwichSampler)


def draws(sampler, seed=0, number=200):
    return [sampler(iteration, seed) for iteration in range(number)]


def test_the_sandwich_has_both_ends_and_draws_all_desired_networks():
    family = make_family()
    for subnets in draws(SandwichSampler(family, num_random=2)):
        assert subnets[0] == family.full
        assert subnets[-1] == family.smallest
        assert len(subnets) == len(set(subnets)) <= 4
    drawn = {s for subnets in draws(SandwichSampler(family)) for s in subnets}
    assert set(family.desired.values()) < drawn


def test_with_probability_one_only_desired_networks_are_drawn():
    family = make_family(desired=[
        dict(name='a'),
        dict(name='b', widths=0.75),
        dict(name='c', widths=0.5),
        dict(name='d', widths=0.25),
    ])
    sampler = SandwichSampler(family, num_random=1, desired_prob=1.0)
    assert sampler.draws_only_desired
    middles = [subnets[1] for subnets in draws(sampler)]
    assert set(middles) == {family['b'], family['c']}
    # More than there are: all of them, each once.
    everything = SandwichSampler(family, num_random=9, desired_prob=1.0)
    assert set(everything(0, 0)) == set(family.desired.values())
    assert len(everything(0, 0)) == 4
    assert not SandwichSampler(family).draws_only_desired


def test_a_probability_is_a_share_of_the_draws():
    family = make_family()
    drawn = draws(SandwichSampler(family, desired_prob=0.5), number=400)
    share = sum(family['middle'] in subnets for subnets in drawn) / 400
    assert 0.4 < share < 0.6


def test_the_seed_and_the_iteration_decide():
    sampler = SandwichSampler(make_family(), desired_prob=0.0)
    assert draws(sampler) == draws(sampler)
    assert draws(sampler) != draws(sampler, seed=1)
    assert sampler(0, 0) != sampler(1, 0)


def test_two_processes_with_one_seed_agree():
    program = ('from conftest import make_family\n'
               'from dspnet_mm.models import SandwichSampler\n'
               'sampler = SandwichSampler(make_family(), desired_prob=0.5)\n'
               'print([str(s) for i in range(20) for s in sampler(i, 7)])\n')
    outputs = {
        subprocess.run([sys.executable, '-c', program],
                       capture_output=True,
                       check=True,
                       env={
                           'PYTHONPATH': ':'.join(sys.path),
                           'PYTHONHASHSEED': str(n)
                       }).stdout
        for n in (1, 2)
    }
    assert len(outputs) == 1 and b'w' in outputs.pop()


def test_all_and_fixed():
    family = make_family()
    assert AllDesiredSampler(family)(3, 0) == list(family.desired.values())
    assert FixedSampler(family)(3, 0) == [family.full]
    assert FixedSampler(family, 'tiny')(3, 0) == [family['tiny']]


def test_of_all_the_supernet_is_the_first():
    tiny = dict(name='tiny', widths=0.25, depths=1)
    middle = dict(name='middle', widths=0.5)
    family = make_family(desired=[tiny, dict(name='large'), middle])
    expected = [family[name] for name in ('large', 'tiny', 'middle')]
    assert AllDesiredSampler(family)(3, 0) == expected
    without = make_family(desired=[tiny, middle])
    assert AllDesiredSampler(without)(3, 0) == [*without.desired.values()]


def test_nothing_smaller_than_the_smallest_is_drawn():
    family = make_family(desired=[
        dict(name='a'),
        dict(name='b', widths=0.75),
        dict(name='c', widths=0.5, depths=1),
        dict(name='d', widths=0.25, depths=1),
    ])
    sampler = SandwichSampler(family, smallest='c', desired_prob=0.5)
    drawn = {subnet for subnets in draws(sampler) for subnet in subnets}
    assert {family[name] for name in 'abc'} < drawn
    assert min(min(subnet.widths) for subnet in drawn) == 0.5
    assert all(subnets[-1] == family['c'] for subnets in draws(sampler))
    alone = SandwichSampler(family, smallest='a', desired_prob=1.0)
    assert alone(0, 0) == [family.full]
    assert alone.draws_only_desired


def test_each_phase_has_its_sampler():
    family = make_family()
    sampler = PhasedSampler(family, [
        dict(type='FixedSampler', until=0.3),
        dict(type='AllDesiredSampler', until=0.6),
        dict(type='FixedSampler', name='tiny', until=1),
    ])
    desired = list(family.desired.values())
    for progress, expected in ((0., [family.full]), (0.29, [family.full]),
                               (0.3, desired), (0.59, desired),
                               (0.6, [family['tiny']]), (0.999,
                                                         [family['tiny']])):
        assert sampler(7, 0, progress) == expected
    assert sampler.draws_only_desired
    any_member = dict(type='SandwichSampler', until=1)
    assert not PhasedSampler(family, [any_member]).draws_only_desired


@pytest.mark.parametrize(
    'ends', [[], [0.5], [0.5, 0.5, 1], [0.5, 0.2, 1], [0, 1], [None]])
def test_phases_must_fill_the_training(ends):
    phases = [dict(type='FixedSampler', until=end) for end in ends]
    with pytest.raises(InputError, match='the last one 1'):
        PhasedSampler(make_family(), phases)


def test_wrong_arguments_are_refused_naming_the_allowed():
    family = make_family()
    with pytest.raises(InputError, match='0 or more'):
        SandwichSampler(family, num_random=-1)
    with pytest.raises(InputError, match=r'in \[0, 1\]'):
        SandwichSampler(family, desired_prob=1.5)
    with pytest.raises(InputError, match='large.*middle.*tiny'):
        FixedSampler(family, 'huge')
    # What it draws would have other channels than asked for.
    grouped = GroupedResNetFamily(18, 12, 4, num_groups=2, stem='small')
    with pytest.raises(InputError, match='sampler.type=ClusterSampler'):
        SandwichSampler(grouped)
