# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import re
import runpy
import subprocess
import sys

import pytest
from conftest import DIGITS_CONFIG, ROOT, run_tool
from matplotlib import pyplot as plt

TOOL = 'transfer.py'
SCENES = os.path.join('dataset', 'make_digit_scenes.py')


@pytest.fixture(scope='module')
def exports(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exports')
    done = run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', folder, '--subnet', 'small', 'tiny',
                    '--calib-images', 8)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    done = run_tool(SCENES, '--out', folder, '--train', 64, '--test', 8)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.needs('mmdet', 'mmseg', 'mmcv.ops')
@pytest.mark.parametrize('task, metric, others', [
    ('digits-det', 'coco/bbox_mAP', ['one_by_one']),
    ('digits-seg', 'mIoU', []),
])
def test_each_init_is_fine_tuned(task, metric, others, exports, scenes,
                                 tmp_path):
    args = [
        TOOL, task, exports, 'tiny', '--data', scenes, '--out', tmp_path,
        '--processes', 2
    ]
    if others:
        # It is not asked how these were trained.
        args += ['--one-by-one', exports]
    done = run_tool(*args)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / f'transfer_{task}.json').read_text())
    rows = report['rows']
    assert [row['init'] for row in rows] == ['slimmed', 'random', *others]
    for row in rows:
        assert (row['task'], row['subnet'], row['seed']) == (task, 'tiny', 0)
        assert row['metric'] == metric
        assert 0 <= row['value'] <= 100 and row['seconds'] > 1
    # The same weights and the same seed: the same training.
    if others:
        assert rows[2]['value'] == rows[0]['value']
    assert f'{metric}, slimmed' in done.stdout
    logs = {
        path.parent.name.split('-')[1]: path.read_text()
        for path in tmp_path.glob('*/*/log.txt')
    }
    loaded = re.escape(f'of {exports}/tiny.pth into SlimResNet')
    assert re.search(f'loaded all \\d+ tensors {loaded}', logs['slimmed'])
    assert 'loaded all' not in logs['random']

    # What is finished is not done again, and the report is the same.
    again = run_tool(*args)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert json.loads(
        (tmp_path / f'transfer_{task}.json').read_text()) == report

    # What it leaves behind can be looked at.
    picture = tmp_path / 'predictions.png'
    folders = sorted(path.parent for path in tmp_path.glob('*/*/log.txt'))
    slimmed, = (path for path in folders if '-slimmed-' in path.name)
    assert f'show_predictions.py {slimmed} --out ' in done.stdout
    drawn = run_tool('show_predictions.py', *folders, '--images', 2,
                     '--score-thr', 0, '--out', picture)
    assert drawn.returncode == 0, drawn.stderr
    assert 'tiny, slimmed, seed 0' in drawn.stdout
    height, width, _ = plt.imread(picture).shape
    # Rows of two images, as wide as the truth and a column for each.
    assert width / height == pytest.approx((1 + len(folders)) / 2, rel=0.1)


@pytest.fixture(scope='module')
def imagenet_stem_exports(trained_imagenet_stem, tmp_path_factory):
    folder = tmp_path_factory.mktemp('imagenet_stem_exports')
    done = run_tool('slim_export.py', trained_imagenet_stem.config,
                    trained_imagenet_stem.checkpoint, '--out-dir', folder,
                    '--subnet', 'tiny', '--calib-images', 8)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_a_config_of_ones_own_is_a_task(imagenet_stem_exports,
                                        tmp_path_factory, tmp_path):
    scenes = tmp_path_factory.mktemp('data') / 'scenes'
    done = run_tool(SCENES, '--out', scenes, '--train', 8, '--test', 2)
    assert done.returncode == 0, done.stderr
    base = os.path.join(ROOT, 'configs', 'benchmarks', 'mmdetection',
                        'coco-format',
                        'retinanet_slimmed_fpn_1xb8-24e_coco-format.py')
    own = tmp_path / 'own.py'
    # Everything that is near an object is one: something is detected.
    own.write_text(f"_base_ = '{base}'\n"
                   'train_cfg = dict(max_epochs=1)\n'
                   'model = dict(test_cfg=dict(score_thr=0.))\n')
    done = run_tool(TOOL, own, imagenet_stem_exports, '--data', scenes,
                    '--out', tmp_path / 'out', '--processes', 1)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'out' / 'transfer_own.json').read_text())
    assert [row['metric'] for row in report['rows']] == 2 * ['coco/bbox_mAP']
    log, = (tmp_path / 'out').glob('own/tiny-slimmed-*/log.txt')
    assert re.search(r'Epoch\(train\) .*\[1\]\[1/1\].*loss_bbox',
                     log.read_text())
    # As MMDetection's users use it.
    use = ('from mmdet.apis import DetInferencer; import sys; '
           'config, weights, image, out = sys.argv[1:]; '
           "DetInferencer(config, weights, device='cpu')(image, out_dir=out)")
    image = next((scenes / 'test').iterdir())
    done = subprocess.run([
        sys.executable, '-c', use, log.parent / 'own.py',
        log.parent / 'epoch_1.pth', image, tmp_path / 'found'
    ])
    assert done.returncode == 0
    assert (tmp_path / 'found' / 'vis' / image.name).exists()


@pytest.mark.needs('mmdet', 'mmcv.ops')
@pytest.mark.parametrize('stem, complaint', [
    ('small', "stem 'small'.*made for 'imagenet'"),
    ('imagenet', 'nowhere is not a folder'),
])
def test_what_bccd_needs_is_asked_for(stem, complaint, exports,
                                      imagenet_stem_exports, tmp_path):
    folder = dict(small=exports, imagenet=imagenet_stem_exports)[stem]
    done = run_tool(TOOL, 'bccd', folder, '--data', 'nowhere', '--out',
                    tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr), done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'args, complaint',
    [
        (['nothing', '{exports}'], 'nothing does not exist.*digits-det'),
        (['digits-det', 'nowhere'], 'nowhere does not exist'),
        (['digits-det', '{exports}', 'huge'], 'holds no huge.*small, tiny'),
        (['digits-det', '{exports}', '--seeds', 0], 'at least 1'),
        (['{tmp}/broken.py', '{exports}'], 'SyntaxError.*mend it'),
        (['{config}', '{exports}', '--data', 'nowhere'
          ], '--data nowhere is not'),
        (['digits-det', '{exports}', '--one-by-one', '{tmp}'], 'subnets.json'),
        # No scenes are made in a place that may be mistyped.
        (['digits-det', '{exports}', '--data', 'nowhere'], 'nowhere is not a'),
        ([DIGITS_CONFIG, '{exports}'
          ], 'does not fine-tune one network, that of EXPORT'),
    ])
def test_wrong_arguments_are_refused(args, complaint, exports, tmp_path):
    config = os.path.join(ROOT, 'configs', 'benchmarks', 'classification',
                          'cifar10',
                          'slimmed_ft-1xb128-steplr-200e_cifar10.py')
    (tmp_path / 'broken.py').write_text('model = dict(')
    args = [
        str(value).format(exports=exports, tmp=tmp_path, config=config)
        for value in args
    ]
    done = run_tool(TOOL, *args, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert not (tmp_path / 'out').exists()


def test_other_data_make_another_training(tmp_path):
    tool = runpy.run_path(os.path.join(ROOT, 'tools', TOOL))
    root = tmp_path / 'data'
    root.mkdir()
    cfg = dict(train_dataloader=dict(dataset=[dict(data_root=str(root))]))
    assert tool['data_roots'](cfg) == [str(root)]
    states = []
    for name in ('a', 'b'):
        (root / name).write_text(name)
        # It is looked at once for all trainings.
        tool['state_of'].cache_clear()
        states += [tool['state_of'](str(root)) for _ in range(2)]
    assert states[0] == states[1] != states[2] == states[3]


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_a_failed_training_is_named(exports, tmp_path):
    (tmp_path / 'data').mkdir()
    done = run_tool(TOOL, 'digits-det', exports, 'tiny', '--data',
                    tmp_path / 'data', '--out', tmp_path)
    assert done.returncode == 1
    assert re.search(
        r'tiny-\w+-seed0 failed: FileNotFoundError: .*train.json.*log.txt',
        done.stderr)
    assert not (tmp_path / 'transfer_digits-det.json').exists()


def test_mims_folder_is_there_before_several_processes_make_it(tmp_path):
    done = subprocess.run([
        sys.executable,
        os.path.join(ROOT, 'tools', TOOL), 'nothing',
        str(tmp_path)
    ],
                          env=dict(os.environ, HOME=str(tmp_path)))
    assert done.returncode == 2
    assert (tmp_path / '.cache' / 'mim').is_dir()
