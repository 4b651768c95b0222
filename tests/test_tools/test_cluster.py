# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import re

import numpy as np
import pytest
from conftest import run_tool
from PIL import Image

from dspnet_mm.datasets import EmbeddedDigits, ImageFolder, read_clusters


@pytest.fixture
def sdr(trained_sdr):
    return trained_sdr.config, trained_sdr.checkpoint


def test_the_lists_of_training_and_tool_are_alike(sdr, tmp_path):
    """In form; the unified network has learnt on since the former."""
    out = tmp_path / 'lists' / 'clusters.csv'
    done = run_tool('cluster.py', *sdr, '--out', out)
    assert done.returncode == 0, done.stderr
    clusters = read_clusters(str(out), EmbeddedDigits(indices=160), 4)
    assert np.bincount(clusters).tolist() == [40] * 4
    with open(out.with_suffix('.json')) as file:
        report = json.load(file)
    assert report['sizes'] == [40] * 4 and report['images'] == 160
    assert {'command', 'versions', 'seeds'} <= set(report)
    with Image.open(out.with_suffix('.png')) as picture:
        assert picture.width == 1200
    assert sorted(os.listdir(
        out.parent)) == ['clusters.csv', 'clusters.json', 'clusters.png']


def test_clusters_are_as_large_as_the_config_says(sdr, tmp_path):
    reports = []
    for args in ([], ['--cfg-options',
                      'custom_hooks.0.balanced=False'], ['--plain']):
        out = tmp_path / f'{len(reports)}.csv'
        done = run_tool('cluster.py', *sdr, '--out', out, *args)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(out.with_suffix('.json').read_text()))
    assert [each['balanced'] for each in reports] == [True, False, False]
    assert reports[0]['sizes'] != reports[1]['sizes'] == reports[2]['sizes']


def test_a_folder_is_clustered_by_any_method(trained, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(30):
        pixels = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f'{number}.png')
    (images / '7.png').write_bytes(b'none')
    out = tmp_path / 'mine.csv'
    done = run_tool('cluster.py', trained.config, trained.checkpoint, '--data',
                    images, '--out', out, '--clusters', 9, '--groups', 3)
    assert done.returncode == 0, done.stderr
    sizes = np.bincount(read_clusters(str(out), ImageFolder(str(images)), 9))
    assert sizes.max() - sizes.min() <= 1
    assert re.search(r'\| 9 +\| 30 +\| 3 +\| 3 +\| 4 +\|', done.stdout)


@pytest.mark.parametrize('args, complaint', [
    (['--out', 'mine.txt'], 'no name of a .csv file'),
    (['--out', 'mine.csv', '--clusters', 8, '--groups', 3
      ], 'cannot come of.*--groups 8 --clusters 8'),
    (['--out', 'mine.csv', '--clusters', 256], '160 images cannot make 256'),
    (['--out', 'mine.csv', '--clusters', 0], '0 clusters cannot come of'),
    (['--out', 'mine.csv', '--data', 'nowhere'], 'nowhere.*is not a folder'),
    (['--out', 'mine.csv', '--device', 'tpu'], 'tpu'),
    (['--out', 'mine.csv', '--seed', -1], 'from 0 to 2'),
    (['--out', 'mine.csv', '--seed', 2**32], 'from 0 to 2'),
    (['--out', 'mine.csv', '--workers', -1], 'at least 0'),
])
def test_bad_input_is_refused(sdr, tmp_path, monkeypatch, args, complaint):
    monkeypatch.chdir(tmp_path)
    done = run_tool('cluster.py', *sdr, *args)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr.splitlines()[-1])
    assert not os.listdir(tmp_path)


def test_images_without_names_are_refused(sdr, tmp_path):
    folder = tmp_path / 'images' / 'of_a_class'
    folder.mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(folder / '0.png')
    dataset = 'train_dataloader.dataset'
    done = run_tool('cluster.py', *sdr, '--out', tmp_path / 'mine.csv',
                    '--cfg-options', f'{dataset}._delete_=True',
                    f'{dataset}.type=mmcls.CustomDataset',
                    f'{dataset}.data_prefix={folder.parent}')
    assert done.returncode == 2
    assert 'CustomDataset does not name its images' in done.stderr


def test_what_exists_is_replaced_on_demand_only(sdr, tmp_path):
    out = tmp_path / 'mine.csv'
    out.write_text('of another run')
    done = run_tool('cluster.py', *sdr, '--out', out)
    assert done.returncode == 2 and '--force' in done.stderr
    assert out.read_text() == 'of another run'
    assert run_tool('cluster.py', *sdr, '--out', out,
                    '--force').returncode == 0
    assert len(read_clusters(str(out), EmbeddedDigits(indices=160), 4)) == 160


def test_a_family_without_groups_is_asked_for_them(trained, tmp_path):
    done = run_tool('cluster.py', trained.config, trained.checkpoint, '--out',
                    tmp_path / 'mine.csv')
    assert done.returncode == 2
    assert 'give --clusters and --groups' in done.stderr


def test_another_configs_checkpoint_is_refused(sdr, trained, tmp_path):
    done = run_tool('cluster.py', sdr[0], trained.checkpoint, '--out',
                    tmp_path / 'mine.csv')
    assert done.returncode == 2
    assert 'does not fit the config' in done.stderr


def test_groups_of_other_channels_are_refused(sdr, tmp_path):
    """As many channels in all, so that each weight has its shape."""
    done = run_tool('cluster.py', *sdr, '--out', tmp_path / 'mine.csv',
                    '--cfg-options', 'model.family.levels=4')
    assert done.returncode == 2
    assert re.search(
        'of a family with .*levels=2, the config has .*levels=4: '
        'give the config it was trained with', done.stderr)
