# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import re
import runpy
import shutil

import cv2
import numpy as np
import pytest
from conftest import ROOT, run_tool, train_on_digits

from dspnet_mm.datasets.image_folder import EXTENSIONS
from dspnet_mm.evaluation.report import labelled_datasets, random_twin
from dspnet_mm.slimming import (build_family_of, export_subnets, load_config,
                                load_plain)


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    # Three iterations, as elsewhere, leave features to chance.
    trained = train_on_digits(tmp_path_factory.mktemp('trained'), images=960)
    folder = tmp_path_factory.mktemp('evaluated')
    cfg = load_config(trained.config)
    family = build_family_of(cfg)
    export_subnets(
        cfg,
        trained.checkpoint, {n: family[n]
                             for n in ('small', 'tiny')},
        str(folder),
        num_calibration=200,
        progress=lambda text: None)
    return folder


@pytest.fixture(scope='module')
def report(exports, tmp_path_factory):
    path = tmp_path_factory.mktemp('report') / 'new' / 'report.json'
    done = run_tool('evaluate.py', exports, '--data', 'digits', '--baselines',
                    'random', 'pixels', '--out', path)
    assert done.returncode == 0, done.stderr
    assert re.search(r'\| DSPNet +\| tiny ', done.stdout)
    return path


@pytest.mark.smoke
def test_the_report_holds_a_row_for_each(report):
    content = json.loads(report.read_text())
    assert [(row['method'], row['subnet'])
            for row in content['rows']] == [('dspnet', 'small'),
                                            ('dspnet', 'tiny'),
                                            ('random', 'small'),
                                            ('random', 'tiny'),
                                            ('pixels', 'pixels')]
    for row in content['rows']:
        assert set(row) == {
            'method', 'subnet', 'widths', 'depths', 'params', 'flops', 'knn',
            'linear'
        }
        assert 0.3 < row['knn'] <= 1 and 0.3 < row['linear'] <= 1
    assert content['rows'][-1]['knn'] > 0.95
    assert content['seeds'] == [0]
    assert 'torch' in content['versions']
    assert 'evaluate.py' in content['command']


def test_evaluation_is_deterministic(exports, report, tmp_path):
    again = tmp_path / 'again.json'
    assert run_tool('evaluate.py', exports / 'tiny.pth', '--data', 'digits',
                    '--baselines', 'random', '--out', again).returncode == 0
    rows = json.loads(again.read_text())['rows']
    first = json.loads(report.read_text())['rows']
    assert rows == [first[1], first[3]]


def test_classifiers_are_trained_jointly(exports, report, tmp_path):
    path = tmp_path / 'report.json'
    # Of a folder those in it; the largest need not come first.
    other = shutil.copy(exports / 'small.pth', tmp_path)
    done = run_tool('evaluate.py', exports / 'tiny.pth', exports / 'small.pth',
                    other, '--data', 'digits', '--probe', 'slimmable',
                    'switchable', '--baselines', 'pixels', '--out', path)
    assert done.returncode == 0, done.stderr
    assert 'jointly, one layer sliced | jointly, one layer each' in done.stdout
    tiny, small, alone, pixels = json.loads(path.read_text())['rows']
    # One that is sliced has nothing to share.
    assert alone['linear_slimmable'] == alone['linear_switchable']
    assert small['linear_slimmable'] != alone['linear_slimmable']
    assert (tiny['subnet'], small['subnet']) == ('tiny', 'small')
    for row in (tiny, small):
        # Each with a layer of its own is as good as alone, about.
        assert row['linear_switchable'] == pytest.approx(
            row['linear'], abs=0.05)
        assert 0.3 < row['linear_slimmable'] <= 1
    assert 'linear_switchable' not in pixels


@pytest.mark.parametrize('as_identity', [True, False])
def test_a_random_twin_starts_as_the_supernet(trained, tmp_path, as_identity):
    cfg = load_config(trained.config,
                      {'model.backbone.zero_init_residual': as_identity})
    export_subnets(
        cfg,
        trained.checkpoint,
        dict(tiny=build_family_of(cfg)['tiny']),
        str(tmp_path),
        num_calibration=10,
        progress=lambda text: None)
    network = load_plain(str(tmp_path / 'tiny.pth'))
    size = network.meta['input_size']
    datasets = labelled_datasets('digits', size)
    twin = random_twin(network, datasets[0], 0, 'cpu').backbone
    blocks = [m for m in twin.modules() if hasattr(m, 'norm2')]
    assert blocks
    for block in blocks:
        assert block.norm1.weight.min() == 1
        assert block.norm2.weight.abs().max() == (0 if as_identity else 1)


@pytest.mark.smoke
def test_the_report_is_drawn(report):
    done = run_tool('plot_report.py', report)
    assert done.returncode == 0, done.stderr
    image = cv2.imread(str(report.with_suffix('.png')))
    assert image.shape[0] > 300 and image.std() > 10
    text = report.with_suffix('.svg').read_text()
    assert text.startswith('<?xml') and '</svg>' in text
    assert sorted(os.listdir(
        report.parent)) == ['report.json', 'report.png', 'report.svg']
    rows = json.loads(report.read_text())['rows']
    tool = runpy.run_path(os.path.join(ROOT, 'tools', 'plot_report.py'))
    panels = tool['draw'](rows).axes
    for panel, metric in zip(panels, ('knn', 'linear')):
        *curves, pixels = panel.get_lines()
        for curve, method in zip(curves, ('dspnet', 'random')):
            expected = sorted((row['flops'], 100 * row[metric]) for row in rows
                              if row['method'] == method)
            assert curve.get_xydata() == pytest.approx(np.array(expected))
        assert pixels.get_ydata()[0] == 100 * rows[-1][metric]


@pytest.fixture
def folder(tmp_path):
    """A folder per class; the classes differ in brightness."""
    generator = np.random.default_rng(0)
    for split, number in (('train', 12), ('val', 6)):
        for label, level in (('dark', 40), ('bright', 200)):
            place = tmp_path / 'data' / split / label
            place.mkdir(parents=True)
            for i in range(number):
                image = generator.normal(level, 20, (20, 30, 3))
                cv2.imwrite(
                    str(place / f'{i}.png'),
                    image.clip(0, 255).astype(np.uint8))
    return tmp_path / 'data'


def test_all_images_are_evaluated_that_are_pretrained_on(folder):
    for number, suffix in enumerate(EXTENSIONS):
        image = folder / 'train' / 'dark' / f'{number}.png'
        image.rename(image.with_suffix(suffix))
    train, _ = labelled_datasets(str(folder), 16)
    assert len(train) == 24


def test_a_folder_per_class(exports, folder):
    done = run_tool('evaluate.py', exports, '--data', folder, '--knn-k', 5)
    assert done.returncode == 0, done.stderr
    accuracies = re.findall(r'DSPNet.*\| (\d\.\d+) \| (\d\.\d+)', done.stdout)
    assert len(accuracies) == 2
    assert min(float(a) for row in accuracies for a in row) > 0.9


@pytest.mark.parametrize('case, complaint', [
    ('no such folder', 'nowhere does not exist'),
    ('no index', 'holds no subnets.json'),
    ('no data', 'is not a folder: give "digits"'),
    ('no test', 'has no folder test or val'),
    ('no classes', 'holds no class folders'),
    ('no images', 'cannot be used .Found 0 files'),
    ('other classes', 'different classes .dark, grey in one only'),
    ('one class', 'has 1 class, dark'),
    ('seed', '-1 is not allowed: give a whole number from 0 to'),
    ('training checkpoint', 'was not written by slim_export.py'),
    ('changed file', 'is not the file that subnets.json lists'),
    ('k', 'give 1 to 24'),
    ('device', "device 'cuda:99' cannot be used"),
    ('out', 'is a folder: give the name of a file'),
])
def test_bad_input_is_one_line_status_two_and_nothing_written(
        case, complaint, exports, folder, trained, tmp_path):
    networks, data, more = exports, folder, []
    if case == 'no such folder':
        networks = 'nowhere'
    elif case == 'no index':
        networks = folder
    elif case == 'no data':
        data = 'nowhere'
    elif case == 'no test':
        (folder / 'val').rename(folder / 'other')
    elif case == 'no classes':
        data = tmp_path / 'flat'
        (data / 'train').mkdir(parents=True)
        (data / 'test').mkdir()
    elif case == 'no images':
        for image in folder.glob('val/*/*'):
            image.unlink()
    elif case == 'other classes':
        (folder / 'val' / 'dark').rename(folder / 'val' / 'grey')
    elif case == 'one class':
        for split in ('train', 'val'):
            shutil.rmtree(folder / split / 'bright')
    elif case == 'seed':
        more = ['--baselines', 'random', '--seed', -1]
    elif case == 'training checkpoint':
        networks = trained.checkpoint
    elif case == 'changed file':
        networks = tmp_path / 'changed'
        networks.mkdir()
        for name in os.listdir(exports):
            content = (exports / name).read_bytes()
            (networks / name).write_bytes(content +
                                          b' ' * name.endswith('tiny.pth'))
    elif case == 'k':
        more = ['--knn-k', 25]
    elif case == 'device':
        more = ['--device', 'cuda:99']
    out = tmp_path if case == 'out' else tmp_path / 'report.json'
    done = run_tool('evaluate.py', networks, '--data', data, '--out', out,
                    *more)
    assert done.returncode == 2, done.stderr
    message = done.stderr.strip().split('\n')[-1]
    assert 'error: ' in message and re.search(complaint, message)
    assert not (tmp_path / 'report.json').exists()
    assert '[1/' not in done.stdout  # Nothing was evaluated.


@pytest.mark.parametrize('content', [
    None, 'no json', '{}', '{"rows": []}', '{"rows": [{"method": "a"}]}',
    *('{"rows": [{"method": "a", "subnet": "a", "linear": 1, '
      f'"knn": {knn}, "flops": {flops}' + '}]}'
      for knn, flops in (('NaN', 1), ('{}', 1), (2, 1), (1, -1), (1, '1e400')))
])
def test_what_is_no_report_is_not_drawn(content, tmp_path):
    path = tmp_path / 'report.json'
    if content is not None:
        path.write_text(content)
    done = run_tool('plot_report.py', path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert not path.with_suffix('.png').exists()
