# Copyright (c) The dspnet_mm authors. All rights reserved.
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


def test_an_image_folder_is_read_to_its_depths(tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    for name in ('b.png', 'a/x.JPG', 'a/b/c/y.bmp'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path.with_suffix('.png')), image)
        path.with_suffix('.png').rename(path)
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
