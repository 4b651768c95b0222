# Copyright (c) The dspnet_mm authors. All rights reserved.
import importlib
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import run_tool
from PIL import Image

from dspnet_mm.routing import METRICS
from dspnet_mm.slimming import find_plain_files, load_plain


@pytest.fixture(scope='module')
def sdr(trained_sdr, tmp_path_factory):
    """A trained SDR: config, checkpoint, and the folder of its exports."""
    exports = str(tmp_path_factory.mktemp('exports'))
    trained = trained_sdr.config, trained_sdr.checkpoint
    # Calibrated on all digits, as where they are the task.
    done = run_tool('slim_export.py', *trained, '--out-dir', exports, '--all',
                    '--cfg-options', 'train_dataloader.dataset.indices=None')
    assert done.returncode == 0, done.stderr
    return (*trained, exports)


@pytest.fixture
def images(tmp_path):
    """A task: bright images and dark ones."""
    generator = np.random.default_rng(0)
    for split in ('train', 'test'):
        for brightness, name in ((40, 'dark'), (200, 'bright')):
            folder = tmp_path / 'task' / split / name
            folder.mkdir(parents=True)
            for number in range(15):
                pixels = generator.integers(0, 50, (14, 14, 3)) + brightness
                Image.fromarray(pixels.astype(np.uint8)).save(folder /
                                                              f'{number}.png')
    return str(tmp_path / 'task')


def ranking_in(folder):
    with open(os.path.join(folder, 'ranking.json')) as file:
        return json.load(file)


@pytest.mark.smoke
@pytest.mark.parametrize('metric', ['knn', 'linear', 'logme'])
def test_checkpoint_and_exports_are_ranked_alike(sdr, tmp_path, metric):
    reports = []
    for number, place in enumerate((sdr[:2], sdr[2:])):
        out = str(tmp_path / str(number))
        done = run_tool('route.py', *place, '--task', 'digits', '--metric',
                        metric, '--top', 2, '--out', out)
        assert done.returncode == 0, done.stderr
        report = ranking_in(out)
        reports.append(report)
        best = report['rows'][0]['subnet']
        path, = find_plain_files([out])
        assert load_plain(path).meta['name'] == best
        assert re.findall(r'^\| (\d) \| (\S+)', done.stdout, re.MULTILINE) == [
            (str(place), row['subnet'])
            for place, row in enumerate(report['rows'], 1)
            if place <= 2 or row['subnet'] == 'unified'
        ]
        assert {'command', 'versions', 'seeds', 'seconds'} <= set(report)
    scores = [{
        row['subnet']: row['score']
        for row in report['rows']
    } for report in reports]
    assert {*scores[0]} == {*map('cluster-{}'.format, range(4)), 'unified'}
    assert scores[0] == pytest.approx(scores[1], abs=0.003)
    for report in reports:
        assert report['unified'] == {
            row['subnet']: row['score']
            for row in report['rows']
        }['unified']


def test_a_folder_is_a_task(sdr, images, tmp_path):
    done = run_tool('route.py', *sdr[:2], '--task', images, '--max-images', 24,
                    '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    report = ranking_in(tmp_path / 'out')
    assert report['images'] == 24
    assert report['rows'][0]['score'] == 1


def test_the_unified_network_may_be_the_best(sdr, images, tmp_path,
                                             monkeypatch):
    places = itertools.count()
    monkeypatch.setitem(METRICS, 'knn', lambda *_: next(places))
    done = run_tool('route.py', *sdr[:2], '--task', images, '--out',
                    tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    weights = [
        load_plain(os.path.join(folder, 'unified.pth')).backbone.conv1.weight
        for folder in (tmp_path / 'out', sdr[2])
    ]
    assert torch.equal(*weights)


def test_what_is_exported_is_what_was_ranked(sdr, images, tmp_path):
    options = ('--task', images, '--max-images', 22, '--metric', 'logme')
    found = tmp_path / 'found'
    scores = []
    for place, out in ((sdr[:2], found), ((found, ), tmp_path / 'again')):
        done = run_tool('route.py', *place, *options, '--out', out)
        assert done.returncode == 0, done.stderr
        scores.append(ranking_in(out)['rows'][0]['score'])
    # With batch norm of the same 22 images; those of all 30 are others.
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_networks_that_have_not_parted_are_told_of(trained_sdr, images,
                                                   tmp_path):
    # In its first phase.
    done = run_tool('route.py', trained_sdr.config,
                    trained_sdr.folder / 'iter_2.pth', '--task', images,
                    '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    report = ranking_in(tmp_path / 'out')
    scores = {row['subnet']: row['score'] for row in report['rows']}
    assert len({scores[f'cluster-{number}'] for number in range(4)}) == 1
    assert 'only 1 of the 4 sub-networks are distinct' in done.stderr


def test_other_methods_networks_are_ranked_too(trained, tmp_path):
    done = run_tool('route.py', trained.config, trained.checkpoint, '--task',
                    'digits', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    report = ranking_in(tmp_path)
    assert report['unified'] is None
    assert len(report['rows']) == 4


def test_what_exists_is_replaced_on_demand_only(sdr, images, tmp_path):
    command = ['route.py', sdr[2], '--task', images, '--out', tmp_path / 'out']
    assert run_tool(*command).returncode == 0
    before = ranking_in(tmp_path / 'out')
    done = run_tool(*command, '--metric', 'logme')
    assert done.returncode == 2 and '--force' in done.stderr
    assert ranking_in(tmp_path / 'out') == before
    assert run_tool(*command, '--metric', 'logme', '--force').returncode == 0
    assert ranking_in(tmp_path / 'out')['metric'] == 'logme'
    # Also where another one is found: a checkpoint's.
    assert run_tool('route.py', *sdr[:2], *command[2:],
                    '--force').returncode == 0
    best = ranking_in(tmp_path / 'out')['rows'][0]['subnet']
    assert sorted(os.listdir(tmp_path / 'out')) == [
        f'{best}.pth', f'{best}.py', 'ranking.json', 'subnets.json'
    ]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail_at(monkeypatch, target, which):
    """Let one call of a function fail, counted from 0."""
    module, name = target.rsplit('.', 1)
    module = importlib.import_module(module)
    genuine, calls = getattr(module, name), []

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == which + 1:
            raise OSError(28, 'No space left on device')
        return genuine(*args, **kwargs)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize('kind, target, which', [
    ('checkpoint', 'dspnet_mm.slimming.export.save_plain', 0),
    ('checkpoint', 'dspnet_mm.slimming.export._publish', 0),
    ('exports', 'shutil.copy', 0),
    ('exports', 'shutil.copy', 1),
])
def test_a_failure_costs_neither_network_nor_ranking(sdr, images, tmp_path,
                                                     monkeypatch, kind, target,
                                                     which):
    out = tmp_path / 'out'
    place = sdr[:2] if kind == 'checkpoint' else sdr[2:]
    command = ['route.py', *place, '--task', images, '--out', out]
    with monkeypatch.context() as patch:
        fail_at(patch, target, which)
        done = run_tool(*command)
    assert done.returncode == 2 and 'No space' in done.stderr
    # Nothing that a later call would not replace.
    assert os.listdir(out) == ['ranking-new.json']
    assert run_tool(*command).returncode == 0
    (out / 'notes.txt').write_text('mine')
    before = contents(out)
    assert 'ranking-new.json' not in before
    with monkeypatch.context() as patch:
        fail_at(patch, target, which)
        done = run_tool(*command, '--metric', 'logme', '--force')
    assert done.returncode == 2
    kept = contents(out)
    ranking = json.loads(kept.pop('ranking-new.json'))
    assert f'{out}/ranking-new.json' in done.stderr
    assert ranking['metric'] == 'logme' and len(ranking['rows']) == 5
    assert kept == before
    assert [path.name for path in tmp_path.iterdir()
            if path.name[0] == '.'] == []
    assert run_tool(*command, '--metric', 'logme', '--force').returncode == 0
    assert ranking_in(out)['metric'] == 'logme'
    assert 'ranking-new.json' not in contents(out)
    assert (out / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('force', [[], ['--force']])
def test_other_exports_are_never_replaced(sdr, images, tmp_path, force):
    other = tmp_path / 'other'
    shutil.copytree(sdr[2], other)
    before = contents(other)
    for place, complaint in (([other], 'where the networks come from'),
                             ([sdr[2]], 'exported otherwise'),
                             (sdr[:2], 'exported otherwise')):
        done = run_tool('route.py', *place, '--task', images, '--out', other,
                        *force)
        assert done.returncode == 2 and complaint in done.stderr
    assert before == contents(other)


@pytest.mark.parametrize('metric', ['knn', 'logme'])
def test_what_was_ranked_is_handed_over(sdr, images, tmp_path, metric):
    # What was trained on is not needed.
    moved = tmp_path / 'moved.py'
    moved.write_text(f"_base_ = '{sdr[0]}'\n"
                     'train_dataloader = dict(dataset=dict(_delete_=True, '
                     "type='ImageFolder', data_root='nowhere', pipeline=[]))")
    for number, task in enumerate(('digits', images)):
        out = str(tmp_path / str(number))
        again = str(tmp_path / f'again-{number}')
        for place, folder in (((moved, sdr[1]), out), ((out, ), again)):
            done = run_tool('route.py', *place, '--task', task, '--metric',
                            metric, '--out', folder)
            assert done.returncode == 0, done.stderr
        # The file's features are those that it was found by.
        found = ranking_in(out)['rows'][0]
        assert ranking_in(again)['rows'][0] == dict(
            found, score=pytest.approx(found['score'], abs=2e-3))
        path, = find_plain_files([out])
        calibration = load_plain(path).meta['calibration']
        assert calibration['images'] == min(1024, ranking_in(out)['images'])
        assert calibration['data_root'] == ('' if task == 'digits' else
                                            os.path.join(images, 'train'))


@pytest.mark.parametrize('change, complaint', [
    (lambda task: shutil.rmtree(f'{task}/train/dark'), 'different classes'),
    (lambda task:
     [shutil.rmtree(f'{task}/{split}/dark')
      for split in ('train', 'test')], 'has 1 class'),
    (lambda task:
     [os.remove(f'{task}/train/dark/{number}.png')
      for number in range(13)], r'2 image\(s\) of the class dark'),
    (lambda task: [
        os.remove(f'{task}/train/{name}/{number}.png') for number in range(6)
        for name in ('dark', 'bright')
    ], 'has 18 images, not more than the k=20'),
])
def test_a_wrong_task_is_refused(sdr, images, tmp_path, change, complaint):
    change(images)
    done = run_tool('route.py', *sdr[:2], '--task', images, '--out',
                    tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr.splitlines()[-1])
    assert not (tmp_path / 'out').exists()


def test_files_of_ones_own_stay(sdr, images, tmp_path):
    own = tmp_path / 'cluster-1.pth'
    own.write_text('mine')
    done = run_tool('route.py', *sdr[:2], '--task', images, '--out', tmp_path,
                    '--force')
    assert done.returncode == 2
    assert 'already holds cluster-1.pth' in done.stderr
    assert [path.name for path in tmp_path.iterdir()
            if path.is_file()] == ['cluster-1.pth']
    assert own.read_text() == 'mine'


@pytest.mark.parametrize('args, complaint', [
    (['{exports}', '--task', 'nowhere'], 'nowhere is not a folder'),
    (['nowhere', '--task', 'digits'], 'nowhere does not exist'),
    (['{other}', '--task', 'digits'], 'is no folder: give one'),
    (['{config}', 'no.pth', '--task', 'digits'], 'no.pth does not exist'),
    (['{config}', '{other}', '--task', 'digits'], 'does not fit the config'),
    (['a', 'b', 'c', '--task', 'digits'], 'EXPORTS, or CONFIG and CHECKP'),
    (['{exports}', '--task', 'digits', '--top', '0'], '--top 0.*at least 1'),
    (['{exports}', '--task', 'digits', '--max-images', '0'
      ], '--max-images 0.*at least 1'),
    (['{exports}', '--task', 'digits', '--max-images', '12'
      ], r'digits with --max-images 12 has \d image\(s\) of the class \d'),
    (['{exports}', '--task', 'digits', '--device', 'tpu'], 'tpu'),
])
def test_bad_input_is_refused(sdr, trained, tmp_path, args, complaint):
    known = dict(config=sdr[0], exports=sdr[2], other=trained.checkpoint)
    done = run_tool('route.py', *(arg.format(**known) for arg in args),
                    '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr.splitlines()[-1])
    assert not (tmp_path / 'out').exists()
