# Copyright (c) The dspnet_mm authors. All rights reserved.
import hashlib
import json
import os
import re
import shutil

import pytest
from conftest import mixture_sources, run_tool
from PIL import Image


@pytest.fixture
def sources(tmp_path):
    return mixture_sources(tmp_path)


def make(sources, *args):
    return run_tool('dataset/make_mixture.py', '--cifar10',
                    sources / 'cifar10', '--bccd', sources / 'bccd', '--out',
                    sources / 'mixture', '--images', 14, '--train', 5,
                    '--test', 3, *args)


def contents(folder):
    """By content, the files below a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), 'rb') as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            found.setdefault(digest, []).append(os.path.join(place, name))
    return found


def test_tasks_are_of_other_images(sources):
    done = make(sources)
    assert done.returncode == 0, done.stderr
    mixture = sources / 'mixture'
    worlds = sorted(os.listdir(mixture / 'images'))
    assert worlds == ['animals', 'cells', 'digits', 'vehicles']
    for world in worlds:
        images = os.listdir(mixture / 'images' / world)
        assert len(images) == 14
        with Image.open(mixture / 'images' / world / images[0]) as image:
            assert image.size == (32, 32)
    report = json.loads((mixture / 'mixture.json').read_text())
    assert report['tasks']['pets'] == [10, 6] and report['seeds'] == [0]
    tasks = os.listdir(mixture / 'tasks')
    assert len(tasks) == 7
    # CIFAR-10's test images test, and nothing else.
    held_out = {*contents(sources / 'cifar10' / 'test')}
    known = {*contents(mixture / 'images')}
    for task in tasks:
        train, test = ({*contents(mixture / 'tasks' / task / split)}
                       for split in ('train', 'test'))
        assert len(train) and len(test)
        for images in (train, test):
            assert not known & images
            known |= images
        assert not held_out & train
        assert test <= held_out or task in ('digits', 'cells')
        assert sorted(os.listdir(mixture / 'tasks' / task / 'train')) == \
            sorted(os.listdir(mixture / 'tasks' / task / 'test'))
    assert re.search(r'\| digits .*\| 50 +\| 30 +\|', done.stdout)
    assert re.search(r'\| pets +\| cat dog +\| 10 +\| 6 +\|', done.stdout)
    # Of 3 slides 2 train; a slide has 2 red cells and one of each other.
    assert re.search(r'\| cells +\| RBC WBC Platelets +\| 8 +\| 4 +\|',
                     done.stdout)


def test_the_seed_decides(sources):
    drawn, said = [], []
    for seed in (0, 0, 1):
        assert make(sources, '--seed', seed).returncode == 0
        mixture = sources / 'mixture'
        drawn.append({*contents(mixture / 'images')})
        said.append(json.loads((mixture / 'mixture.json').read_text()))
        shutil.rmtree(mixture)
    assert drawn[0] == drawn[1] != drawn[2]
    hashes = [about['sha256'] for about in said]
    assert hashes[0] == hashes[1] != hashes[2]


def replace(folder, old, new):
    for path in folder.glob('bccd/Annotations/*.xml'):
        path.write_text(path.read_text().replace(old, new))
    for suffix in ('xml', 'jpg'):
        # What lies beside the folder.
        (folder / f'outside.{suffix}').touch()


@pytest.mark.parametrize('change, args, complaint', [
    (lambda folder: (folder / 'mixture').mkdir(), [], 'mixture exists'),
    (lambda folder: shutil.rmtree(folder / 'cifar10' / 'train'), [],
     'has no train/.*download_cifar10'),
    (lambda folder: shutil.rmtree(folder / 'cifar10' / 'test' / 'cat'), [],
     'test has no cat'),
    (lambda folder: shutil.rmtree(folder / 'bccd' / 'ImageSets'), [],
     'trainval.txt is no file'),
    (lambda folder:
     (folder / 'bccd/ImageSets/Main/test.txt').write_text('../../outside'), [],
     'outside.xml is not in .*bccd'),
    (lambda folder: replace(folder, 'RBC', 'Plasmodium'), [],
     'has the cell Plasmodium: allowed are RBC'),
    (lambda folder: replace(folder, '<object>', '<objekt>'), [],
     'xml cannot be read'),
    (lambda folder: None, ['--images', 17], 'images of a world'),
    (lambda folder: None, ['--images', 0], 'at least 1'),
    (lambda folder: None, ['--train', 7],
     '14 train images of airplane, at least 15 are .* and to pre-train on: '
     'give a smaller --train'),
    (lambda folder: None, ['--test', 4],
     r'6 test images of airplane, at least 8 are needed for 2 task\(s\): '
     'give a smaller --test'),
])
def test_bad_input_is_refused(sources, change, args, complaint):
    change(sources)
    done = make(sources, *args)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr.splitlines()[-1])
    left = [name for name in os.listdir(sources) if 'mixture' in name]
    assert not left or not os.listdir(sources / 'mixture')


@pytest.mark.parametrize(
    'pattern', ['cifar10/train/cat/*.png', 'bccd/JPEGImages/trainval*.jpg'])
@pytest.mark.parametrize('damage', ['truncated', 'no image'])
def test_an_image_that_cannot_be_decoded_is_named(sources, pattern, damage):
    for path in sources.glob(pattern):
        content = path.read_bytes()
        path.write_bytes(content[:len(content) //
                                 2] if damage == 'truncated' else b'no image')
    done = make(sources)
    assert done.returncode == 2
    line, = done.stderr.splitlines()
    assert re.match(
        rf'error: {sources}/{pattern.replace("*", "[0-9]")} cannot be used '
        r'as an image \(', line)
    assert not (sources / 'mixture').exists()


def test_an_image_that_is_missing_is_named(sources):
    path = sources / 'bccd' / 'JPEGImages' / 'test0.jpg'
    path.unlink()
    done = make(sources)
    assert done.returncode == 2
    assert f'error: {path} is not in ' in done.stderr
