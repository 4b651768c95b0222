# Copyright (c) The dspnet_mm authors. All rights reserved.
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import accumulate, chain
from math import log
from statistics import mean, stdev
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool
from mmselfsup.registry import DATASETS
from PIL import Image

from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.evaluation import ImageFormat

TOOL = os.path.join('benchmarks', 'once_vs_one_by_one.py')


@pytest.fixture(scope='module')
def benchmark():
    """The benchmark's modules, as its own folder has them."""
    folder = os.path.join(ROOT, 'tools', 'benchmarks')
    with mock.patch.object(sys, 'path', [folder, *sys.path]):
        yield importlib.import_module


def outcome(benchmark, accuracies):
    """One in which all metrics are equal."""
    metrics = benchmark('trials').METRICS
    return benchmark('once_vs_one_by_one').Outcome(
        {
            name: dict.fromkeys(metrics, value)
            for name, value in accuracies.items()
        }, [dict(torch='2.0.1')])


def costs(*seconds):
    return [
        dict(seconds=value, without_loading=value**0.5) for value in seconds
    ]


def test_the_figures_are_paired_by_seed(benchmark):
    ours = [
        outcome(benchmark, dict(large=0.6, tiny=0.5)),
        outcome(benchmark, dict(large=0.7, tiny=0.4)),
        outcome(benchmark, dict(large=0.5, tiny=0.6)),
    ]
    theirs = [
        outcome(benchmark, dict(large=0.61, tiny=0.45)),
        outcome(benchmark, dict(large=0.68, tiny=0.38)),
        outcome(benchmark, dict(large=0.53, tiny=0.55)),
    ]
    figures = benchmark('once_vs_one_by_one').figures_of(
        ours, theirs, costs(9), costs(16, 4))
    by_seed = [0.02, 0.02, 0.01]
    assert figures['knn_gain_mean'] == pytest.approx(mean(by_seed))
    assert figures['knn_gain_mean_se'] == pytest.approx(
        stdev(by_seed) / 3**0.5)
    of_large = [-0.01, 0.02, -0.03]
    assert figures['linear_gain_worst'] == pytest.approx(mean(of_large))
    assert figures['linear_gain_worst_se'] == pytest.approx(
        stdev(of_large) / 3**0.5)
    # The largest is the supernet.
    of_tiny = [0.05, 0.02, 0.05]
    assert figures['linear_gain_smaller'] == pytest.approx(mean(of_tiny))
    assert figures['linear_gain_smaller_se'] == pytest.approx(
        stdev(of_tiny) / 3**0.5)
    assert figures['knn_error_ratio'] == pytest.approx(2.7 / 2.8)
    assert figures['cost_ratio'] == pytest.approx(9 / 20)
    assert figures['cost_ratio_without_loading'] == pytest.approx(3 / 6)


def test_what_theirs_lacks_is_left_out(benchmark):
    ours = [outcome(benchmark, dict(large=0.1, tiny=0.5))] * 2
    theirs = [outcome(benchmark, dict(tiny=0.4))] * 2
    comparison = benchmark('once_vs_one_by_one')
    figures = comparison.figures_of(ours, theirs, costs(1), costs(1))
    for kind in ('mean', 'smaller', 'worst'):
        assert figures[f'knn_gain_{kind}'] == pytest.approx(0.1)
    assert figures['knn_error_ratio'] == pytest.approx(0.5 / 0.6)
    row, = comparison.gain_rows(ours, dict(seed=theirs))
    assert (row['subnet'], row['against']) == ('tiny', 'seed')
    assert row['linear_gain'] == pytest.approx(dict(mean=0.1, se=0.))
    # Seeds beyond theirs as well.
    ours.append(outcome(benchmark, dict(large=0.1, tiny=0.9)))
    assert comparison.figures_of(ours, theirs, costs(1), costs(1)) == figures
    assert comparison.gain_rows(ours, dict(seed=theirs)) == [row]


def test_both_sides_see_the_images_of_the_seed(benchmark, tmp_path):
    data = [benchmark('trials').Data('digits', None, seed) for seed in (4, 1)]
    assert data[0].pretraining() == data[1].pretraining()
    train, test = data[0].evaluation(ImageFormat(8))
    assert len(train[1]) == 1198 and len(test[1]) == 599
    assert test[0].shape == (599, 3, 8, 8)
    dataset = DATASETS.build(data[0].pretraining())
    pixels = {item['img'].tobytes() for item in dataset}
    assert len(pixels) > 1190
    complaint = '3 training images, fewer than the 9'
    with pytest.raises(ValueError, match=complaint):
        folder = tmp_path / 'train' / 'a'
        folder.mkdir(parents=True)
        for name in 'xyz':
            (folder / f'{name}.png').write_bytes(b'')
        benchmark('trials').Data(str(tmp_path), 9, 0).pretraining()


def test_a_report_of_other_data_or_more_is_not_replaced(tmp_path):
    for name in ('data10', 'data100'):
        for part in ('train', 'test'):
            for label in 'ab':
                (tmp_path / name / part / label).mkdir(parents=True)
    path = tmp_path / 'once_vs_one_by_one_quick_data4.json'
    report = dict.fromkeys(('rows', 'by_seed', 'figures', 'settings'), [0])
    report.update(
        budget={},
        seeds=[0, 1],
        command=f'python a.py --data {tmp_path}/data10')
    path.write_text(json.dumps(report))
    done = run_tool(TOOL, '--data', tmp_path / 'data100', '--out', tmp_path)
    assert done.returncode == 2
    assert f'is a report of {tmp_path}/data10, and would' in done.stderr
    report['seeds'] = list(range(3))
    path.write_text(json.dumps(report))
    done = run_tool(TOOL, '--data', tmp_path / 'data10', '--seeds', 2, '--out',
                    tmp_path)
    assert done.returncode == 2
    assert f'{path} is a report of 3 seeds, and would be one of 2' in \
        done.stderr
    report['by_seed'] = dict(seed=[{}] * 3)
    path.write_text(json.dumps(report))
    done = run_tool(TOOL, '--data', tmp_path / 'data10', '--seed-runs', 2,
                    '--out', tmp_path)
    assert done.returncode == 2
    assert 'compares with SEED on 3 seeds, which would be' in done.stderr
    done = run_tool(TOOL, '--data', tmp_path / 'data10', '--first-seed', 2,
                    '--out', tmp_path)
    assert done.returncode == 2
    assert 'is a report of seed 0 and those after it' in done.stderr
    assert json.loads(path.read_text()) == report


def test_what_is_no_report_is_not_replaced(tmp_path):
    path = tmp_path / 'once_vs_one_by_one_quick_digits4.json'
    path.write_text('{}')
    done = run_tool(TOOL, '--data', 'digits', '--out', tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith('give another --out or move the file')
    assert path.read_text() == '{}'


def test_a_setting_that_diverges_is_not_chosen(benchmark):
    evaluate = benchmark('trials').evaluate
    labels = np.arange(40) % 2
    features = [(np.full((40, 3), np.nan, np.float32), labels)] * 2
    assert evaluate(None, features, None, None, 10000) == dict(
        knn=0., linear=0.)
    with pytest.raises(VerificationError, match='seed 3 are not finite'):
        evaluate(None, features, None, None, 3)


def test_a_training_that_diverges_is_told_behind_the_others(
        benchmark, tmp_path):
    module, trials = map(benchmark, ('once_vs_one_by_one', 'trials'))
    args = SimpleNamespace(data='digits', budget='quick', dns=4, out='')
    budget = module.Budget(4, 64, 4, 4, (), (), 128)
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget):
        sides = module.Sides(args)
    # The first overflows, in more iterations in a row than are skipped.
    bad, good, on_setting_seed = (sides.job('dspnet', module.SUPERNET,
                                            trials.Setting(rate), seed)
                                  for rate, seed in ((1e30, 0), (0.01, 0),
                                                     (1e30, 10000)))
    with trials.workers(1) as pool:
        with pytest.raises(VerificationError, match='seed0-lr1.*diverged'):
            trials.run_jobs([bad, good], str(tmp_path), pool)
        result, = trials.run_jobs([on_setting_seed], str(tmp_path), pool)
    assert good.finished(str(tmp_path)) and not bad.finished(str(tmp_path))
    assert result['accuracies']['tiny'] == dict(knn=0., linear=0.)


def test_the_better_half_of_settings_is_tried_on_more_seeds(benchmark):
    asked = []

    def accuracies(settings, seeds):
        asked.append((len(settings), seeds))
        # The first seed flatters the highest rate.
        return [[
            1 - abs(setting.rate - 0.03) - abs(setting.momentum - 0.9) +
            (seed == 10000) * setting.rate * 2 for seed in seeds
        ] for setting in settings]

    best, tried = benchmark('trials').choose_setting('', accuracies,
                                                     (0.01, 0.03, 0.09),
                                                     (0.9, 0.99), (1, 4))
    assert asked == [(6, [10000]), (3, [10000, 10001, 10002, 10003])]
    asked.clear()
    choose = benchmark('trials').choose_setting
    choose('', accuracies, (0.01, 0.03, 0.09), (0.9, ), (1, 2, 3))
    # The last one is the best, however many seeds it is tried on.
    assert asked == [(3, [10000]), (2, [10000, 10001])]
    assert best == (0.03, 0.9)
    assert [len(each['by_seed']) for each in tried] == [1, 1, 4, 1, 4, 4]
    for each in tried:
        assert each['accuracy'] == pytest.approx(mean(each['by_seed']))


@pytest.mark.parametrize('optimum, tried, best', [
    (0.015, [0.015, 0.03, 0.06, 0.0075], 0.015),
    (0.03, [0.03, 0.06, 0.015], 0.03),
    (0.12, [0.03, 0.06, 0.12, 0.24], 0.12),
])
def test_rates_beyond_the_list_are_tried_while_they_are_better(
        benchmark, optimum, tried, best):

    def accuracies(settings, seeds):
        assert seeds == [10000, 10001]
        return [[
            1 - abs(log(setting.rate / optimum)) - setting.momentum / 10
            for _ in seeds
        ] for setting in settings]

    choose = benchmark('trials').choose_setting
    chosen, outcomes = choose(
        '', accuracies, (0.03, 0.06), (0.9, 0.99), (2, ), widen=True)
    assert chosen == (best, 0.9)
    assert [(each['rate'], each['momentum']) for each in outcomes] == [
        (rate, momentum) for rate in sorted(tried) for momentum in (0.9, 0.99)
    ]
    chosen, outcomes = choose('', accuracies, (0.03, 0.06), (0.9, 0.99), (2, ))
    assert len(outcomes) == 4


def test_all_ways_are_trained_and_compared(benchmark, tmp_path):
    module = benchmark('once_vs_one_by_one')
    out = tmp_path / 'out'
    argv = [
        'tool', '--data', 'digits', '--seeds', '2', '--out',
        str(out), '--processes', '2'
    ]
    # The real thing, for some iterations.
    budget = module.Budget(
        1, 64, None, 4, (0.03, ), (0.9, 0.99), 128, setting_seeds=(2, ))
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget), \
            mock.patch.object(sys, 'argv', argv), \
            mock.patch.object(module, 'COST_EPOCHS', 1), \
            mock.patch.object(benchmark('trials'), 'COST_RUNS', 2):
        module.main()
        report_path = out / 'once_vs_one_by_one_quick_digits4.json'
        first = json.loads(report_path.read_text())
        times = [
            path.stat().st_mtime_ns for path in out.glob('trainings/*/*.pth')
        ]
        # What is finished is not done again.
        module.main()
    assert json.loads(report_path.read_text()) == first
    assert times == [
        path.stat().st_mtime_ns for path in out.glob('trainings/*/*.pth')
    ]
    # Two seeds times 1 + 4 + 3 trainings, and two momenta, which SEED has not,
    # on the two seeds that are not reported.
    assert len(times) == 2 * 8 + 2 * 2 * (1 + 4)
    # Settings are chosen on frozen features alone.
    for path in out.glob('trainings/digits-*/result.json'):
        for accuracies in json.loads(path.read_text())['accuracies'].values():
            assert ('finetuned_1' in accuracies) == ('seed1000'
                                                     not in path.parent.name)
    # Each network that is trained alone has settings of its own.
    names = ['large', 'medium', 'small', 'tiny']
    settings = first['settings']
    assert {
        way: [*settings[way]]
        for way in settings
    } == dict(
        dspnet=['supernet'], byol=names, seed=names[1:])
    for setting in (*settings['dspnet'].values(), *settings['byol'].values()):
        assert [each['momentum'] for each in setting['tried']] == [0.9, 0.99]
        best = max(setting['tried'], key=lambda each: each['accuracy'])
        assert setting['best'] == dict(rate=0.03, momentum=best['momentum'])
    # One rate is no choice.
    for setting in settings['seed'].values():
        assert setting == dict(best=dict(rate=0.03, momentum=None), tried=[])
    assert len(first['rows']) == 4 + 4 + 3
    assert first['seeds'] == [0, 1]
    # Costs are those of trainings on purpose, which leave nothing else.
    kept, = out.glob('trainings/costs-*')
    assert os.listdir(kept) == ['result.json']
    runs = json.loads((kept / 'result.json').read_text())['runs']
    assert [[len(stage) for stage in run] for run in runs] == 2 * [[5, 3]]
    of_all = [
        mean(costs)
        for costs in zip(*([cost['seconds'] for cost in chain(*run)]
                           for run in runs))
    ]
    assert first['costs'] == pytest.approx(
        dict(
            dspnet=of_all[:1] * 4,
            byol=[*accumulate(of_all[1:5])],
            seed=[*accumulate([of_all[1], *of_all[5:]])]))
    assert 0 < first['figures']['cost_ratio'] < 2
    assert first['figures']['cost_ratio'] != \
        first['figures']['cost_ratio_without_loading']
    assert all(0.1 < row['linear']['mean'] <= 1 for row in first['rows'])
    for suffix in ('png', 'md'):
        assert (out /
                f'once_vs_one_by_one_quick_digits4.{suffix}').stat().st_size
    # Single ideas may be compared with what was chosen.
    chosen = benchmark('ablate').chosen
    given = dict(
        data='digits',
        method='dspnet',
        budget='quick',
        settings=str(report_path))
    sides = SimpleNamespace(budget=budget)
    assert chosen(
        SimpleNamespace(**given),
        sides) == module.Setting(**settings['dspnet']['supernet']['best'])
    for other, message in ((dict(data='data/cifar10'),
                            'is of digits: give one of data/cifar10'),
                           (dict(method='us3l'), 'give one of us3l')):
        with pytest.raises(InputError, match=message):
            chosen(SimpleNamespace(**{**given, **other}), sides)
    with pytest.raises(InputError, match='give one of --budget quick'):
        chosen(
            SimpleNamespace(**given),
            SimpleNamespace(budget=budget._replace(epochs=2)))
    # A result may be copied without its checkpoints; where a training wants
    # one, it is made again.
    momentum = settings['byol']['large']['best']['momentum']
    teacher, = out.glob(f'trainings/digits-byol-seed0-lr0.03-m{momentum:g}'
                        '-large-*')
    for path in teacher.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != 'result.json':
            path.unlink()
    student, = out.glob('trainings/digits-seed-seed0-lr0.03-tiny-*')
    shutil.rmtree(student)
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget), \
            mock.patch.object(sys, 'argv', argv), \
            mock.patch.object(module, 'COST_EPOCHS', 1):
        module.main()
    assert json.loads(report_path.read_text()) == first
    # More networks, with the settings of these: BYOL's of the other four and
    # DSPNet's are to be trained, for two seeds.
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget), \
            mock.patch.object(sys, 'argv', [
                *argv, '--dns', '8', '--seed-runs', '0']), \
            mock.patch.object(benchmark('trials'), 'COST_RUNS', 1):
        module.main()
    assert len([*out.glob('trainings/*/*.pth')]) == 36 + 2 * (1 + 5)
    report_path = out / 'once_vs_one_by_one_quick_digits8.json'
    more = json.loads(report_path.read_text())
    assert len(more['rows']) == 8 + 8
    # What costs are measured by has its own number of epochs.
    assert more['cost_epochs'] == module.COST_EPOCHS == 2
    assert more['settings'] == {
        way: settings[way]
        for way in ('dspnet', 'byol')
    }


def test_us3l_is_compared_with_the_byol_of_dspnet(benchmark):
    module = benchmark('once_vs_one_by_one')
    args = SimpleNamespace(data='digits', budget='full', dns=4, out='')
    sides = module.Sides(args, 'us3l')
    alone = sides.job('byol', 'large', module.Setting(0.06), 0)
    # Nothing of the method's own settings; and not trained twice.
    assert alone.folder == module.Sides(args).job('byol', 'large',
                                                  module.Setting(0.06),
                                                  0).folder
    assert alone.cfg.optim_wrapper.optimizer.weight_decay > 0
    supernet = sides.job('us3l', module.SUPERNET, module.Setting(0.06), 0)
    assert supernet.cfg.model.distillation == 'second_predictor'
    # Of eight, none is what its sampler calls medium.
    args.dns = 8
    with pytest.raises(InputError, match="'medium'"):
        module.Sides(args, 'us3l')


def test_further_networks_have_the_settings_of_the_nearest(benchmark):
    module = benchmark('once_vs_one_by_one')
    args = SimpleNamespace(data='digits', budget='full', dns=16, out='')
    sides = module.Sides(args)
    rates = dict(large=0.1, medium=0.2, small=0.3, tiny=0.4)
    sides.best['byol'] = {
        name: module.Setting(rate)
        for name, rate in rates.items()
    }
    jobs = sides.jobs('byol', 0)
    assert len(jobs) == 16
    for job in jobs:
        flops = sides.family.flops(sides.family.desired[job.subnet])
        nearest = min(
            rates,
            key=lambda name: abs(
                log(flops / sides.family.flops(sides.family.desired[name]))))
        assert job.cfg.optim_wrapper.optimizer.lr == rates[nearest]
    assert jobs[-1].cfg.optim_wrapper.optimizer.lr == 0.4


def test_a_training_is_the_same_wherever_it_is_kept(benchmark, tmp_path):
    module, trials = benchmark('once_vs_one_by_one'), benchmark('trials')
    students = []
    for out in ('here', str(tmp_path)):
        args = SimpleNamespace(data='digits', budget='full', dns=4, out=out)
        sides = module.Sides(args)
        sides.best['byol'] = dict(large=module.Setting(0.06, 0.9))
        students.append(sides.job('seed', 'tiny', module.Setting(0.03), 0))
    assert students[0].folder == students[1].folder
    # No training is made for them: their teacher is missing, and not there.
    with pytest.raises(
            InputError, match='digits-byol-seed0-lr0.06.*not exist'):
        trials.run_job(students[0], str(tmp_path))


@pytest.fixture
def photographs(tmp_path):
    """Noise of one size, as a folder per class."""
    generator = np.random.default_rng(0)
    for part in ('train', 'test'):
        for label in 'ab':
            folder = tmp_path / 'data' / part / label
            folder.mkdir(parents=True)
            for number in range(16):
                cv2.imwrite(
                    str(folder / f'{number}.png'),
                    generator.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    return tmp_path / 'data'


def test_an_interrupted_byol_is_the_uninterrupted_one(benchmark, photographs,
                                                      tmp_path):
    """Its views are drawn by PyTorch's generator, unlike a supernet's."""
    module, trials = benchmark('once_vs_one_by_one'), benchmark('trials')
    budget = module.BUDGETS['folder']['quick']._replace(
        epochs=6, images=None, batch_size=16, base_channels=4)
    args = SimpleNamespace(
        data=str(photographs), budget='quick', dns=4, out=str(tmp_path))
    with mock.patch.dict(module.BUDGETS['folder'], quick=budget):
        job = module.Sides(args).job('byol', 'tiny', module.Setting(0.06), 0)
    whole, _ = trials.train(job, str(tmp_path / 'whole'))

    def stop(hook, runner):
        # Behind the last checkpoint.
        if runner.epoch == 5:
            raise KeyboardInterrupt

    with mock.patch.object(trials.ProgressHook, 'after_train_epoch', stop), \
            pytest.raises(KeyboardInterrupt):
        trials.train(job, str(tmp_path / 'resumed'))
    resumed, _ = trials.train(job, str(tmp_path / 'resumed'))
    assert os.listdir(tmp_path / 'resumed').count('epoch_6.pth') == 1
    for (name, one), other in zip(whole.state_dict().items(),
                                  resumed.state_dict().values()):
        assert torch.equal(one, other), name


def test_images_are_of_one_size_and_stay_the_same(benchmark, photographs,
                                                  tmp_path):
    check, place = benchmark('trials').check_images, str(photographs)
    folder = str(tmp_path / 'trainings')
    for _ in range(2):
        check(place, folder)
    check('digits', folder)
    assert len(os.listdir(folder)) == 1
    image = photographs / 'train' / 'b' / '3.png'
    cv2.imwrite(str(image), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match='others than when .* another --out'):
        check(place, folder)
    check(place, str(tmp_path / 'other'))
    # Those of the test part are resized.
    cv2.imwrite(
        str(photographs / 'test' / 'b' / '3.png'),
        np.zeros((40, 32, 3), np.uint8))
    check(place, str(tmp_path / 'another'))
    cv2.imwrite(str(image), np.zeros((32, 40, 3), np.uint8))
    with pytest.raises(InputError, match='32x32 pixels and .*3.png 40x32'):
        check(place, str(tmp_path / 'third'))
    # What lies on its side is 32 wide and 40 high.
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new('RGB', (40, 32)).save(image.with_suffix('.jpg'), exif=tags)
    image.unlink()
    with pytest.raises(InputError, match='32x32 pixels and .*3.jpg 32x40'):
        check(place, str(tmp_path / 'third'))


def test_results_say_what_trained_them(benchmark):
    trained_with = benchmark('trials').trained_with
    old, new = dict(torch='2.0.1', numpy='1.26.4'), dict(torch='2.11.0')
    assert trained_with([old, old]) == old
    assert trained_with([new, old, old]) == dict(
        torch='2.0.1, 2.11.0', numpy='1.26.4, none')
    with pytest.raises(InputError, match='on a GPU and others on a CPU'):
        trained_with([old, dict(old, gpu='some')])


@pytest.mark.parametrize('method, algorithm', [
    ('slimclr-mocov2', 'MoCo'),
    ('slimclr-mocov3', 'MoCoV3'),
])
def test_slimclr_is_compared_with_what_it_builds_on(benchmark, method,
                                                    algorithm, tmp_path):
    module = benchmark('once_vs_one_by_one')
    args = SimpleNamespace(data='digits', budget='full', dns=4, out='')
    sides = module.Sides(args, method)
    sides.best[sides.alone] = {
        name: module.Setting(rate)
        for name, rate in zip(sides.family.desired, (0.1, 0.2, 0.3, 0.4))
    }
    jobs = sides.jobs(sides.alone, 0)
    assert [job.cfg.optim_wrapper.optimizer.lr
            for job in jobs] == [0.1, 0.2, 0.3, 0.4]
    assert [job.subnet for job in jobs] == ['large', 'medium', 'small', 'tiny']
    assert {job.cfg.model.type for job in jobs} == {algorithm}
    # The real thing, for some iterations.
    budget = module.Budget(1, 64, None, 4, (0.03, ), (), 128)
    argv = [
        'tool', '--data', 'digits', '--method', method, '--seeds', '2',
        '--processes', '2', '--out',
        str(tmp_path)
    ]
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget), \
            mock.patch.object(sys, 'argv', argv), \
            mock.patch.object(benchmark('trials'), 'COST_RUNS', 1):
        module.main()
    report = json.loads(
        (tmp_path /
         f'once_vs_one_by_one_quick_{method}_digits4.json').read_text())
    assert [*report['by_seed']] == [method, sides.alone]
    assert len(report['rows']) == 2 * 4
    assert report['figures']['cost_ratio'] > 0
    names = [row['subnet'] for row in report['gains']]
    assert names == [*sides.family.desired]
    supernets = [row for row in report['rows'] if row['method'] == method]
    for probes, row in zip(report['probes'], supernets):
        assert probes['subnet'] == row['subnet']
        assert probes['linear'] == row['linear']
        assert probes['switchable_gain']['mean'] == pytest.approx(
            probes['linear_switchable']['mean'] -
            probes['linear_slimmable']['mean'])
        # Paired by seed.
        accuracies = [
            outcome['accuracies'][row['subnet']]
            for outcome in report['by_seed'][method]
        ]
        one, other = (
            each['linear_switchable'] - each['linear_slimmable']
            for each in accuracies)
        assert probes['switchable_gain']['se'] == pytest.approx(
            abs(one - other) / 2)


def test_both_sides_have_as_many_keys(benchmark):
    module = benchmark('once_vs_one_by_one')
    args = SimpleNamespace(data='digits', budget='quick', dns=4, out='')
    budget = module.Budget(1, 64, None, 4, (0.03, ), (), 128, 96)
    with mock.patch.dict(module.BUDGETS['digits'], quick=budget):
        sides = module.Sides(args, 'slimclr-mocov2')
        others = module.Sides(args, 'slimclr-mocov3')
    setting = module.Setting(0.03)
    supernet = sides.job('slimclr-mocov2', module.SUPERNET, setting, 0)
    alone = sides.job('mocov2', 'tiny', setting, 0)
    assert supernet.cfg.model.queue_size == alone.cfg.model.queue_len == 96
    assert 'queue_size' not in others.cfg.model


@pytest.mark.parametrize('args, complaint', [
    (['--data', 'digits', '--seeds', 1], '--seeds 1.*at least 2'),
    (['--data', 'digits', '--budget', 'gpu'], 'gpu.*quick, full'),
    (['--data', 'nowhere'], 'error: nowhere is not a folder'),
    (['--data', 'digits', '--first-seed', 9998], 'on seeds from 10000'),
    (['--data', 'digits', '--seed-runs', 1], '--seed-runs 1.*from 2 to the 3'),
    (['--data', 'digits', '--seed-runs', 4], '--seed-runs 4.*from 2 to the 3'),
    (['--data', 'digits', '--method', 'us3l', '--seed-runs', 2
      ], '--seed-runs is for --method dspnet'),
])
def test_wrong_arguments_are_refused(args, complaint, tmp_path):
    done = run_tool(TOOL, *args, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)


WAITING = '''
import os, sys, time
sys.path.insert(0, sys.argv[1])
from trials import workers

if __name__ == '__main__':
    with workers(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 300).result()
'''


def test_a_worker_ends_with_the_process_that_began_it(tmp_path):
    script = tmp_path / 'waiting.py'
    script.write_text(WAITING)
    folder = os.path.join(ROOT, 'tools', 'benchmarks')
    process = subprocess.Popen(
        [sys.executable, str(script), folder],
        stdout=subprocess.PIPE,
        universal_newlines=True)
    worker = int(process.stdout.readline())
    os.kill(worker, 0)  # It is there.
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.time() + 10
    with pytest.raises(ProcessLookupError):
        while time.time() < deadline:
            os.kill(worker, 0)
            time.sleep(0.1)
