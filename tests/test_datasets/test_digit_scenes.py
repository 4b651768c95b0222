# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
import re

import cv2
import numpy as np
import pytest
from conftest import run_tool

from dspnet_mm import InputError
from dspnet_mm.datasets.digit_scenes import box_of, digit_scenes

TOOL = os.path.join('dataset', 'make_digit_scenes.py')


def test_scenes_are_always_the_same():
    first, again = (list(digit_scenes('train', 5)) for _ in range(2))
    for one, other in zip(first, again):
        assert np.array_equal(one.image, other.image)
        assert one.labels == other.labels
        assert np.array_equal(one.masks, other.masks)
    # More of them begin with the same, and the splits differ.
    assert np.array_equal(next(digit_scenes('train', 1)).image, first[0].image)
    assert not np.array_equal(
        next(digit_scenes('test', 1)).image, first[0].image)


def test_what_is_said_of_a_scene_holds():
    for scene in digit_scenes('test', 50):
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert 1 <= len(scene.labels) == len(scene.masks) <= 6
        assert np.sum(scene.masks, axis=0).max() == 1
        # Masks cover ink, and nothing else is as bright.
        inked = np.any(scene.masks, axis=0)
        assert scene.image[inked].min() >= 96 > scene.image[~inked].max()
        for mask in scene.masks:
            left, top, width, height = box_of(mask)
            assert mask[top:top + height, left:left + width].sum() == \
                mask.sum()
            edges = (mask[top, :], mask[top + height - 1, :], mask[:, left],
                     mask[:, left + width - 1])
            assert all(edge.any() for edge in edges)


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match="'train' and 'test'"):
        next(digit_scenes('val', 1))


@pytest.mark.needs('pycocotools')
def test_the_toolboxes_read_them(tmp_path):
    from pycocotools.coco import COCO
    folder = tmp_path / 'scenes'
    done = run_tool(TOOL, '--out', folder, '--train', 3, '--test', 2)
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(folder / 'train')) == 3
    for split, number in (('train', 3), ('test', 2)):
        coco = COCO(str(folder / 'annotations' / f'{split}.json'))
        assert len(coco.imgs) == number
        for scene, image in zip(
                digit_scenes(split, number), coco.imgs.values()):
            name = image['file_name']
            assert np.array_equal(
                cv2.imread(str(folder / split / name)), scene.image)
            labels = cv2.imread(
                str(folder / 'labels' / split / name), cv2.IMREAD_UNCHANGED)
            found = coco.imgToAnns[image['id']]
            assert len(found) == len(scene.labels)
            for annotation, label, mask in zip(found, scene.labels,
                                               scene.masks):
                name, = (
                    category['name'] for category in coco.cats.values()
                    if category['id'] == annotation['category_id'])
                assert name == str(label)
                assert annotation['bbox'] == box_of(mask)
                assert np.array_equal(coco.annToMask(annotation), mask)
                assert set(labels[mask]) == {label + 1}
            assert (labels > 0).sum() == np.sum(scene.masks)


@pytest.mark.needs('pycocotools')
@pytest.mark.parametrize('args, complaint', [
    (['--train', 0], 'at least 1'),
    (['--out', '{tmp}'], 'exists: give the name of a folder'),
])
def test_wrong_arguments_are_refused(args, complaint, tmp_path):
    args = [str(value).format(tmp=tmp_path) for value in args]
    done = run_tool(TOOL, '--out', tmp_path / 'scenes', *args)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert os.listdir(tmp_path) == []
