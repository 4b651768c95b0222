# Copyright (c) The dspnet_mm authors. All rights reserved.
import os

import cv2
import numpy as np
import pytest
from mmselfsup.registry import DATASETS
from sklearn.datasets import load_digits

from dspnet_mm import InputError


def test_digits_are_split_once_and_for_all():
    train, test = (
        DATASETS.build(dict(type='EmbeddedDigits', split=split))
        for split in ('train', 'test'))
    assert (len(train), len(test)) == (1297, 500)
    everything = load_digits().images
    seen = np.concatenate([
        np.stack([item['img'][..., 0] for item in dataset])
        for dataset in (train, test)
    ])
    # All of them, each once.
    assert sorted(np.round(everything * 255 / 16).sum((1, 2))) == \
        sorted(seen.astype(float).sum((1, 2)))
    counts = np.bincount([item['gt_label'] for item in test])
    assert counts.min() >= 48 and counts.max() <= 52
    image = train[0]['img']
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert (image[..., 0] == image[..., 2]).all()
    with pytest.raises(InputError, match="'train' and 'test'"):
        DATASETS.build(dict(type='EmbeddedDigits', split='val'))


def test_the_folds_test_on_each_digit_once():
    tested = []
    for fold in range(3):
        train, test = (
            DATASETS.build(
                dict(type='EmbeddedDigits', split=split, fold=fold))
            for split in ('train', 'test'))
        assert (len(train), len(test)) == (1198, 599)
        parts = [{item['img'].tobytes()
                  for item in each} for each in (train, test)]
        # Two of the scans are equal.
        assert len(parts[0] & parts[1]) <= 1
        tested += [item['img'].tobytes() for item in test]
    everything = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert sorted(tested) == sorted(image[..., None].repeat(3, -1).tobytes()
                                    for image in everything)
    with pytest.raises(InputError, match='fold=3.*0 to 2'):
        DATASETS.build(dict(type='EmbeddedDigits', fold=3))


def write_images(folder, *names):
    image = np.zeros((4, 4, 3), np.uint8)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path.with_suffix('.png')), image)
        path.with_suffix('.png').rename(path)


def test_an_image_folder_is_read_to_its_depths(tmp_path):
    write_images(tmp_path, 'b.png', 'a/x.JPG', 'a/b/c/y.bmp')
    (tmp_path / 'a' / 'notes.txt').write_text('no image')
    dataset = DATASETS.build(
        dict(
            type='ImageFolder',
            data_root=str(tmp_path),
            pipeline=[dict(type='LoadImageFromFile')]))
    assert len(dataset) == 3
    assert all(item['img'].shape == (4, 4, 3) for item in dataset)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match='nowhere.*is not a folder'):
        DATASETS.build(dict(type='ImageFolder', data_root='nowhere'))
    with pytest.raises(InputError, match='holds no image.*png'):
        DATASETS.build(dict(type='ImageFolder', data_root=str(tmp_path)))


def names_in(folder):
    dataset = DATASETS.build(
        dict(type='ImageFolder', data_root=str(folder), pipeline=[]))
    return [dataset.name_of(index) for index in range(len(dataset))]


def test_links_to_folders_are_followed(tmp_path):
    write_images(tmp_path / 'images', 'a/x.png', 'b.png', 'z/y.png')
    write_images(tmp_path / 'elsewhere', '1.png', 'deep/2.png')
    assert names_in(tmp_path / 'images') == ['a/x.png', 'b.png', 'z/y.png']
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'images' / 'linked')
    linked = [
        'a/x.png', 'b.png', 'linked/1.png', 'linked/deep/2.png', 'z/y.png'
    ]
    assert names_in(tmp_path / 'images') == linked
    os.symlink(tmp_path / 'images', tmp_path / 'root')
    assert names_in(tmp_path / 'root') == linked
    # Not the user's, wherever they lead.
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'images' / '.cache')
    assert names_in(tmp_path / 'images') == linked
    (tmp_path / 'nothing').mkdir()
    os.symlink(tmp_path / 'nothing', tmp_path / 'images' / 'void')
    with pytest.raises(InputError, match='void holds no image'):
        names_in(tmp_path / 'images')


def test_links_back_are_not_followed(tmp_path):
    write_images(tmp_path / 'images', 'a/x.png', 'a/deep/y.png', 'b/z.png')
    before = names_in(tmp_path / 'images')
    os.symlink('..', tmp_path / 'images' / 'a' / 'up')
    os.symlink('.', tmp_path / 'images' / 'b' / 'same')
    assert names_in(tmp_path / 'images') == before
    # Of a folder above, all but where one has come from.
    os.symlink(tmp_path, tmp_path / 'images' / 'b' / 'above')
    write_images(tmp_path, 'other.png')
    assert names_in(tmp_path / 'images') == [
        'a/deep/y.png', 'a/x.png', 'b/above/other.png', 'b/z.png'
    ]
