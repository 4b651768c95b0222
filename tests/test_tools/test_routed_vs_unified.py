# Copyright (c) The dspnet_mm authors. All rights reserved.
import importlib
import json
import os
import shutil
import sys
from collections import Counter
from statistics import mean
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT, mixture_sources, run_tool
from mmengine.config import Config
from mmselfsup.registry import DATASETS, MODELS

from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.models.backbones import build_family
from dspnet_mm.slimming import plain_backbone_cfg

TOOL = os.path.join('benchmarks', 'routed_vs_unified.py')


@pytest.fixture(scope='module')
def tool():
    folder = os.path.join(ROOT, 'tools', 'benchmarks')
    with mock.patch.object(sys, 'path', [folder, *sys.path]):
        yield importlib.import_module('routed_vs_unified')


def result(**networks):
    """A training's, in which kNN and linear probes are alike."""
    return dict(
        accuracies={
            task: {
                name:
                dict(
                    by_knn=score,
                    by_logme=-score,
                    knn=value,
                    linear=value,
                    rank=3.)
                for name, (score, value) in of_task.items()
            }
            for task, of_task in networks.items()
        })


def test_routing_goes_by_the_training_images(tool):
    unified = [
        result(pets=dict(alone=(0.9, 0.5)), road=dict(alone=(0., 0.6)))
    ] * 2
    sdr = [
        result(
            pets=dict(a=(0.5, 0.7), b=(0.4, 0.8), unified=(0.45, 0.6)),
            road=dict(a=(0.1, 0.6), b=(0.2, 0.5), unified=(0.15, 0.55))),
        result(
            pets=dict(a=(0.5, 0.5), b=(0.4, 0.4), unified=(0.45, 0.45)),
            road=dict(a=(0.1, 0.6), b=(0.2, 0.7), unified=(0.15, 0.75)))
    ]
    own = tool.gains_of(list(map(tool.unrouted, sdr)), unified)['knn']
    assert own['mean'] == pytest.approx(mean([0.1, -0.05, -0.05, 0.15]))
    # Networks a and b are taken in turn.
    by_seed = [mean([0.2, -0.1]), mean([0., 0.1])]
    gains = tool.gains_of(sdr, unified)['knn']
    assert gains['mean'] == pytest.approx(mean(by_seed))
    assert gains['se'] == pytest.approx(np.std(by_seed, ddof=1) / 2**0.5)
    # By the other metric, those that the first one leaves.
    assert tool.gains_of(sdr, unified, 'logme')['linear']['mean'] == \
        pytest.approx(mean([0.3, 0., -0.1, 0.]))
    regret = tool.regrets_of(sdr, 'knn', sdr)['knn']
    assert regret['mean'] == pytest.approx(mean([0.1, 0.1, 0., 0.05]))
    # Without the unified network, which is the best of the last task.
    parted = list(map(tool.parted, sdr))
    assert tool.gains_of(parted, unified) == tool.gains_of(sdr, unified)
    assert tool.regrets_of(parted, 'knn', sdr)['knn'] == regret
    assert tool.regrets_of(parted, 'knn',
                           parted)['knn']['mean'] == pytest.approx(0.05)
    rows = {row['task']: row for row in tool.rows_of(unified, sdr)}
    assert rows['pets']['knn_best']['mean'] == pytest.approx(0.65)
    assert rows['mean']['knn_routed']['mean'] - rows['mean']['knn_unified'][
        'mean'] == pytest.approx(gains['mean'])
    for of_task in sdr[0]['accuracies'].values():
        of_task['unified']['by_knn'] = 1.
    assert tool.gains_of(sdr, unified)['knn']['mean'] == pytest.approx(
        mean([0.1, -0.05, 0., 0.1]))
    assert tool.gains_of(parted, unified)['knn'] == gains
    sdr[0]['accuracies']['pets']['unified']['rank'] = 50.
    assert tool.routed(sdr[0])['pets'].rank == 3


def test_the_effective_rank_counts_directions(tool):
    generator = np.random.default_rng(0)
    even = generator.standard_normal((5000, 6))
    assert tool.effective_rank(even) == pytest.approx(6, rel=0.01)
    # A copy is no direction of its own.
    even[:, 3:] = even[:, :3]
    assert tool.effective_rank(even) == pytest.approx(3, rel=0.01)
    # Nor is what a constant is rounded by.
    constant = 1 + 1e-6 * generator.standard_normal((5000, 6))
    assert tool.effective_rank(constant) == pytest.approx(1, abs=0.01)


@pytest.fixture(scope='module')
def mixture(tmp_path_factory):
    folder = mixture_sources(
        tmp_path_factory.mktemp('sources'),
        train=34,
        test=8,
        cells_train=10,
        cells_test=14)
    done = run_tool('dataset/make_mixture.py', '--cifar10', folder / 'cifar10',
                    '--bccd', folder / 'bccd', '--out', folder / 'mixture',
                    '--images', 24, '--train', 12, '--test', 4)
    assert done.returncode == 0, done.stderr
    return folder / 'mixture'


def test_all_ways_are_trained_and_compared(tool, mixture, tmp_path):
    argv = [
        'tool', '--mixture',
        str(mixture), '--seeds', '2', '--processes', '2', '--out',
        str(tmp_path), '--alternatives', 'balanced'
    ]
    # The real thing, for some iterations.
    budget = tool.Budget(1, 2, (0.03, ), (0.9, 0.99), setting_seeds=(2, ))
    config = tmp_path / 'of_two_epochs.py'
    config.write_text(f'_base_ = {tool.CONFIG!r}\n'
                      'train_dataloader = dict(batch_sampler=dict(phases=['
                      'dict(levels=0, until=0.5), dict(levels=1, until=1)]))')
    report_path = tmp_path / 'routed_vs_unified_quick.json'
    with mock.patch.dict(tool.BUDGETS, quick=budget), \
            mock.patch.object(tool, 'CONFIG', str(config)), \
            mock.patch.object(sys.modules['trials'], 'COST_RUNS', 1), \
            mock.patch.object(sys, 'argv', argv):
        tool.main()
        report = json.loads(report_path.read_text())
        # Of a result that was copied alone, the clusters are made again where
        # another training wants them.
        momentum = report['settings']['sdr']['best']['momentum']
        suffix = f'seed0-lr0.03-m{momentum:g}-*'
        copied, = tmp_path.glob(f'trainings/mixture-sdr-{suffix}')
        result = (copied / 'result.json').read_text()
        wanting, = tmp_path.glob(f'trainings/mixture-random-clusters-{suffix}')
        for folder in (copied, wanting):
            shutil.rmtree(folder)
        os.remove(tmp_path / 'trainings' / f'drawn-{copied.name}.csv')
        copied.mkdir()
        (copied / 'result.json').write_text(result)
        tool.main()
        # What it says is not lost by another command.
        for others, complaint in ((argv[:-2], 'add balanced to --alternat'),
                                  ([*argv, '--first-seed',
                                    '7'], 'would be one of seed 7')):
            with mock.patch.object(sys, 'argv', others), \
                    pytest.raises(InputError, match=complaint):
                tool.main()
    assert json.loads(report_path.read_text())['rows'] == report['rows']
    assert (tmp_path / 'routed_vs_unified_quick.png').stat().st_size
    # Of each seed all, four of halves, and six of SDR; on the seeds that are
    # not reported, both ways with two momenta.
    assert len([*tmp_path.glob('trainings/mixture-*/result.json')
                ]) == 2 * 11 + 2 * 2 * 2
    for way in ('alone', 'sdr'):
        setting = report['settings'][way]
        assert [each['momentum'] for each in setting['tried']] == [0.9, 0.99]
        assert setting['best']['momentum'] in (0.99, 0.9)
    # The others have SDR's clusters, or random ones.
    assert len([*tmp_path.glob('trainings/*/clusters.csv')]) == 2 * 3 + 4
    lists = [*tmp_path.glob('trainings/drawn-*.csv')]
    assert len(lists) == 2
    for path in lists:
        trained = path.with_name(path.stem[len('drawn-'):])
        drawn, own = (
            dict(line.split(',') for line in open(file))
            for file in (path, trained / 'clusters.csv'))
        # As many of each, and others.
        assert drawn.keys() == own.keys() and drawn != own
        assert Counter(drawn.values()) == Counter(own.values())
    assert [row['task'] for row in report['rows']] == [
        'animals', 'cells', 'digits', 'flying', 'pets', 'road', 'vehicles',
        'mean'
    ]
    for row in report['rows']:
        assert row['knn_best']['mean'] >= row['knn_routed']['mean']
        assert 0 < row['linear_unified']['mean'] <= 1
    assert [row['idea'] for row in report['parts']
            ] == ['the unified network', *tool.PARTS.values()]
    assert report['parts'][0]['knn_gain'] == dict(mean=0, se=0)
    for row in report['parts']:
        assert 0 < row['spread']['mean'] < 1.5
    row, = report['alternatives']
    assert row['idea'] == 'clusters of one size'
    assert report['mixture']['images'] == 24
    *halves, everything = report['halves']
    assert everything['knn_shapes_gain'] == dict(mean=0, se=0)
    for row in halves:
        assert row['knn_shapes_gain']['mean'] == pytest.approx(
            row['knn_shapes']['mean'] - everything['knn_shapes']['mean'])
    assert [row['images'] for row in report['halves']] == [
        'photographs', 'photographs, as many steps', 'shapes',
        'shapes, as many steps', 'all'
    ]
    assert [row['metric'] for row in report['routing']] == [
        'knn', 'linear', 'logme', "knn, without SDR's own unified network",
        "none: SDR's own unified network"
    ]
    assert report['setting_seeds'] == [10000, 10001]
    one, *_ = report['by_seed']['sdr']
    assert sorted(one['accuracies']['pets']) == [
        *(f'cluster-{number}' for number in range(3)), 'unified'
    ]
    assert [*report['by_seed']['alone'][0]['accuracies']['pets']] == ['alone']
    assert {*one['spreads']} == {f'cluster-{number}' for number in range(3)}
    assert 1 < report['parts'][0]['rank']['mean'] < 64
    comparison, = report['comparison']
    assert comparison['cost_ratio'] > 0
    *_, last = report['rows']
    for key in tool.METRICS:
        for name, more, less in (('gain', 'routed', 'unified'),
                                 ('regret', 'best', 'routed')):
            assert comparison[f'{key}_{name}']['mean'] == pytest.approx(
                last[f'{key}_{more}']['mean'] - last[f'{key}_{less}']['mean'])
    # SDR's are measured with the clusters that it makes.
    kept, = tmp_path.glob('trainings/costs-*/result.json')
    (alone, sdr), = json.loads(kept.read_text())['runs'][0]
    assert sdr['seconds'] > sdr['before_epochs'] > 10 * alone['before_epochs']


def test_clusters_are_made_once_however_long_a_training_is(
        tool, mixture, tmp_path):
    args = SimpleNamespace(
        mixture=str(mixture), budget='full', out=str(tmp_path), seeds=[0])
    assert tool.BUDGETS['full'].cost_part == 4
    brief = [[
        dict(seconds=5., before_epochs=0.),
        dict(seconds=7., before_epochs=3.)
    ]]
    best = dict.fromkeys(('alone', 'sdr'), tool.Setting(0.06, 0.99))
    with mock.patch.object(tool, 'measure_costs', return_value=brief):
        costs = tool.costs_of(args, best, None)
    assert costs == dict(alone=20, sdr=4 * 4 + 3)


def test_each_way_is_what_it_is_called(tool, mixture, tmp_path):
    trainings = tool.Trainings(
        SimpleNamespace(
            mixture=str(mixture), budget='full', out=str(tmp_path)))
    setting = tool.Setting(0.06, 0.99)
    ways = (tool.ALONE, *tool.PARTS, *tool.HALVES)
    cfgs = {way: trainings.job(way, setting, seed=3).cfg for way in ways}
    for way, cfg in cfgs.items():
        assert cfg.optim_wrapper.optimizer.lr == 0.06, way
        assert cfg.model.base_momentum == 0.99, way
        assert cfg.train_dataloader.batch_size == 32, way
    # Apart from what it is called, each SDR has all but what is left out.
    whole = cfgs['sdr']
    assert whole.train_cfg.max_epochs == trainings.budget.sdr_epochs
    phases = whole.train_dataloader.batch_sampler.phases
    assert [phase.levels for phase in phases] == [0, 1]
    assert 'clusters' not in whole.train_dataloader.batch_sampler
    for way, changes in {
            'no-phases': ('phases', 'clusters'),
            'no-distillation': ('weight', ),
            'neither': ('phases', 'clusters', 'weight'),
            'random-clusters': ('clusters', )
    }.items():
        cfg = Config(cfgs[way].to_dict())
        batches = cfg.train_dataloader.batch_sampler
        if 'phases' in changes:
            assert batches.phases == phases[1:]
            batches.phases = phases
        if 'clusters' in changes:
            batches.pop('clusters')
        if 'weight' in changes:
            assert cfg.model.pop('distillation_weight') == 0
        assert cfg.to_dict() == whole.to_dict(), way
    clusters = {
        way: cfgs[way].train_dataloader.batch_sampler.clusters
        for way in ('no-phases', 'neither', 'random-clusters')
    }
    assert clusters['no-phases'] == clusters['neither']
    assert clusters['random-clusters'] != clusters['neither']
    # As large as a sub-network, and trained for longer.
    alone = cfgs[tool.ALONE]
    assert alone.train_cfg.max_epochs == trainings.budget.unified_epochs
    family = build_family(alone.model.family.to_dict())
    assert [*family.desired] == [tool.ALONE]
    small = trainings.family.subnet_of(0)
    assert family.params(family.full) == trainings.family.params(small)
    assert family.flops(family.full) == trainings.family.flops(small)
    for way in tool.ALTERNATIVES:
        cfg = trainings.job(way, setting, seed=3).cfg
        other = build_family(cfg.model.family.to_dict())
        assert other.params(other.subnet_of(0)) == family.params(family.full)
        assert cfg.train_cfg.max_epochs == trainings.budget.sdr_epochs
        assert cfg.optim_wrapper.optimizer.lr == 0.06
        assert cfg.to_dict() != whole.to_dict(), way
        MODELS.build(cfg.model)
    for way, (_, factor, _) in tool.HALVES.items():
        assert cfgs[way].train_cfg.max_epochs == factor * \
            trainings.budget.unified_epochs
        assert cfgs[way].model == alone.model


def test_halves_are_of_their_worlds(tool, mixture):
    trained = {}
    for name, (worlds, *_) in tool.HALVES.items():
        cfg = tool.Mixture(str(mixture), '', worlds, 0).pretraining()
        dataset = DATASETS.build(cfg)
        trained[name] = [
            dataset.name_of(index).split('/')[0]
            for index in range(len(dataset))
        ]
    assert Counter(trained['shapes']) == dict(digits=24, cells=24)
    assert Counter(trained['photographs-longer']) == dict(
        vehicles=24, animals=24)


def test_a_setting_that_diverges_is_not_chosen(tool):
    family = build_family(Config.fromfile(tool.CONFIG).model.family.to_dict())
    network = MODELS.build(plain_backbone_cfg(family, family['unified']))
    network.conv1.weight.data.fill_(np.nan)
    images = (torch.zeros(8, 3, 32, 32), ) * 2, (np.arange(8) % 2, ) * 2
    assert {*tool.worth(network, *images, 10000).values()} == {0.}
    with pytest.raises(VerificationError, match='seed 3 are not finite'):
        tool.worth(network, *images, 3)


def test_what_is_no_mixture_is_refused(tmp_path):
    done = run_tool(TOOL, '--mixture', tmp_path, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert 'holds no mixture: give what tools/dataset/make_mixture.py' in \
        done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out').exists()
