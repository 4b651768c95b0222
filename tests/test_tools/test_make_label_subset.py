# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
import re
from collections import Counter

import pytest
from conftest import run_tool
from mmcls.datasets import CustomDataset

TOOL = os.path.join('dataset', 'make_label_subset.py')
SIZES = dict(cat=200, dog=100, eel=3)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'train'
    for name, size in SIZES.items():
        (folder / name).mkdir(parents=True)
        for number in range(size):
            (folder / name / f'no. {number:03}.JPEG').touch()
    return folder


def test_a_part_of_each_class_is_drawn_by_the_seed(images, tmp_path):
    lists = []
    for number, seed in enumerate((0, 0, 1)):
        path = tmp_path / f'{number}.txt'
        done = run_tool(TOOL, images, '--percent', 10, '--seed', seed, '--out',
                        path)
        assert done.returncode == 0, done.stderr
        assert '31 of 303 images, of 3 classes' in done.stdout
        lists.append(path.read_text())
    assert lists[0] == lists[1] != lists[2]
    # As MMClassification reads them.
    part = CustomDataset(data_prefix=str(images), ann_file=str(path))
    everything = CustomDataset(data_prefix=str(images))
    labels = {
        info['img_path']: info['gt_label']
        for info in map(everything.get_data_info, range(len(everything)))
    }
    found = [part.get_data_info(index) for index in range(len(part))]
    assert len({info['img_path'] for info in found}) == 31
    assert all(info['gt_label'] == labels[info['img_path']] for info in found)
    # At least one of each.
    assert Counter(info['gt_label'] for info in found) == {0: 20, 1: 10, 2: 1}


@pytest.mark.parametrize(
    'args, complaint',
    [
        (['{images}', '--percent', 0], '--percent 0 is not allowed'),
        (['{images}', '--percent', 101], '--percent 101 is not allowed'),
        (['{images}', '--percent', 1, '--seed', -1], '-1 is not allowed'),
        (['nowhere', '--percent', 1], 'nowhere is not a folder'),
        (['{images}/cat', '--percent', 1], r'must lie in .*/CLASS/'),
        # Its folders are no classes.
        (['{images}/..', '--percent', 1], r'train holds no image: give the'),
        (['{images}', '--percent', 1, '--out', '{images}'], 'is a folder'),
    ])
def test_wrong_arguments_are_refused(args, complaint, images, tmp_path):
    path = tmp_path / 'list.txt'
    args = [str(value).format(images=images) for value in args]
    done = run_tool(TOOL, '--out', path, *args)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert not path.exists()


def test_a_list_is_replaced_only_when_asked(images, tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('mine')
    args = [images, '--percent', 1, '--out', path]
    done = run_tool(TOOL, *args)
    assert done.returncode == 2 and '--force' in done.stderr
    assert path.read_text() == 'mine'
    assert run_tool(TOOL, *args, '--force').returncode == 0
    assert len(path.read_text().splitlines()) == 4
