# Copyright (c) The dspnet_mm authors. All rights reserved.
import importlib
import json
import os
import sys
from statistics import mean
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample

from dspnet_mm.errors import InputError

METHODS = ('dspnet', 'us3l', 'slimclr-mocov2', 'slimclr-mocov3')


@pytest.fixture(scope='module')
def benchmark():
    """The benchmark's modules, as its own folder has them."""
    folder = os.path.join(ROOT, 'tools', 'benchmarks')
    with mock.patch.object(sys, 'path', [folder, *sys.path]):
        yield importlib.import_module


@pytest.mark.parametrize('method', METHODS)
def test_every_idea_changes_the_config_and_trains(benchmark, method, tmp_path):
    ablate, comparison = map(benchmark, ('ablate', 'once_vs_one_by_one'))
    for part in ('train', 'test'):
        for label in 'ab':
            (tmp_path / part / label).mkdir(parents=True)
    args = SimpleNamespace(data=str(tmp_path), budget='quick', dns=4, out='')
    shipped = comparison.Sides(args, method).cfg
    for name, idea in ablate.IDEAS[method].items():
        cfg = comparison.Sides(args, method, idea.options).cfg
        assert cfg.to_dict() != shipped.to_dict(), name
        # Views that are made already, at the first and the last iteration.
        cfg.model.data_preprocessor = dict(type='SelfSupDataPreprocessor')
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        info = MessageHub.get_current_instance()
        info.update_info('max_iters', 10)
        for iteration in (0, 9):
            info.update_info('iter', iteration)
            data = dict(
                inputs=[torch.rand(8, 3, 32, 32) for _ in range(2)],
                data_samples=[SelfSupDataSample() for _ in range(8)])
            assert model.train_step(data, optimizer)['loss'].isfinite(), name


def test_an_idea_is_compared_on_the_same_seeds(benchmark, tmp_path, capfd):
    ablate, comparison = map(benchmark, ('ablate', 'once_vs_one_by_one'))
    argv = [
        'tool', '--data', 'digits', '--seeds', '2', '--processes', '1',
        '--out',
        str(tmp_path)
    ]
    # The real thing, for some iterations.
    budget = comparison.Budget(4, 64, None, 4, (), (), 128)
    # One after the other: the table is of both.
    for idea in ('losses-averaged', 'slow-start-50'):
        with mock.patch.dict(comparison.BUDGETS['digits'], quick=budget), \
                mock.patch.object(sys, 'argv', [*argv, '--ideas', idea]), \
                mock.patch.object(benchmark('trials'), 'COST_RUNS', 1):
            ablate.main()
    assert 'losses-averaged, digits-dspnet-seed1' in capfd.readouterr().err
    reports = [
        json.loads(
            (tmp_path / f'ablation_quick_digits_{name}.json').read_text())
        for name in ('slow-start-50', 'losses-averaged')
    ]
    shipped = []
    for report in reports:
        assert report['seeds'] == [0, 1] and report['versions']['torch']
        assert report['rows'][0]['knn_gain'] == dict(
            mean=report['figures']['knn_gain_mean'],
            se=report['figures']['knn_gain_mean_se'])
        subnets = {row['subnet']: row for row in report['subnets']}
        assert [*subnets] == ['large', 'medium', 'small', 'tiny']
        for key, names in (('gain', [*subnets]), ('smaller', [*subnets][1:])):
            assert report['rows'][0][f'linear_{key}']['mean'] == pytest.approx(
                mean(subnets[name]['linear_gain']['mean'] for name in names))
        shipped.append(report['by_seed']['shipped'])
    assert shipped[0] == shipped[1]
    accuracies = [[of_seed['accuracies'] for of_seed in trained]
                  for trained in (shipped[0], *(each['by_seed']['idea']
                                                for each in reports))]
    # What an idea changes is what was trained.
    assert accuracies[0] != accuracies[1] != accuracies[2] != accuracies[0]
    assert reports[0]['options']['model.sampler']['phases'][0]['until'] == 0.5
    everything = json.loads(
        (tmp_path / 'ablation_quick_digits.json').read_text())
    for part in ('rows', 'subnets'):
        assert everything[part] == [
            row for report in reports for row in report[part]
        ]
    # What it says is not lost by another command.
    for change, complaint in ((dict(seeds=[0, 1, 2]), 'of 3 seeds, and would'),
                              (dict(setting={}), 'another learning rate')):
        path = tmp_path / 'ablation_quick_digits.json'
        path.write_text(json.dumps(dict(everything, **change)))
        with mock.patch.dict(comparison.BUDGETS['digits'], quick=budget), \
                mock.patch.object(
                    sys, 'argv', [*argv, '--ideas', 'step-once']), \
                pytest.raises(InputError, match=complaint):
            ablate.main()


def test_an_idea_of_another_method_is_refused():
    done = run_tool(
        os.path.join('benchmarks', 'ablate.py'), '--data', 'digits',
        '--method', 'us3l', '--ideas', 'grow-30', '--out', 'nowhere')
    assert done.returncode == 2
    assert 'grow-30 does not exist for us3l: choose from' in done.stderr


@pytest.mark.parametrize('ideas, complaint', [
    (['per-image-views'], 'per-image-views reads images from files'),
    (['begin-at-random'], 'is how all networks begin'),
    (['step-once', 'target-until-70'
      ], "target-until-70 is the same training as 'as shipped' on digits"),
    (['grow-50', 'target-until-50'], "same training as 'grow-50'"),
    (['step-once', 'step-once'], "same training as 'step-once'"),
])
def test_what_would_be_no_comparison_is_refused(tmp_path, ideas, complaint):
    done = run_tool(
        os.path.join('benchmarks', 'ablate.py'), '--data', 'digits', '--ideas',
        *ideas, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert complaint in done.stderr
    assert not (tmp_path / 'out').exists()


def test_a_report_of_other_data_is_not_replaced(tmp_path):
    for part in ('train', 'test'):
        for label in 'ab':
            (tmp_path / 'data100' / part / label).mkdir(parents=True)
    path = tmp_path / 'ablation_quick_data_zero-init.json'
    report = dict(
        rows=[0], budget={}, seeds=[0], command='python a.py --data data10')
    path.write_text(json.dumps(report))
    done = run_tool(
        os.path.join('benchmarks', 'ablate.py'), '--data',
        tmp_path / 'data100', '--ideas', 'zero-init', '--out', tmp_path)
    assert done.returncode == 2
    assert f'{path} is a report of data10, and would be' in done.stderr
    assert json.loads(path.read_text()) == report
