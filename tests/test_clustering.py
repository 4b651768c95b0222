# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from dspnet_mm import InputError
from dspnet_mm.clustering import cluster_tree, image_features
from dspnet_mm.evaluation import (ImageFormat, evaluation_dataset,
                                  extract_features, iterate)
from dspnet_mm.files import read_json, write_json
from dspnet_mm.slimming import build_plain_backbone, recalibrate

FORMAT = ImageFormat(12, mean=[78.] * 3, std=[96.] * 3, bgr_to_rgb=True)


def blobs(sizes, generator):
    """Points around four corners, two of which are near each other."""
    corners = np.array([[0, 0], [0, 2], [9, 0], [9, 2]], np.float32)
    truth = np.repeat(range(4), sizes)
    noise = generator.normal(0, 0.2, (len(truth), 2)).astype(np.float32)
    order = generator.permutation(len(truth))
    return (corners[truth] + noise)[order], truth[order]


def same_division(one, other):
    return len(set(zip(one, other))) == len(set(one)) == len(set(other))


@pytest.mark.parametrize('balanced, sizes', [
    (True, [50, 50, 50, 50]),
    (False, [20, 90, 50, 5]),
])
def test_similar_clusters_share_a_branch(balanced, sizes):
    features, truth = blobs(sizes, np.random.default_rng(0))
    clusters = cluster_tree(features, 2, 2, balanced)
    assert same_division(clusters, truth)
    assert same_division(clusters // 2, truth // 2)
    assert np.array_equal(clusters, cluster_tree(features, 2, 2, balanced))


@pytest.mark.parametrize('seed', range(5))
def test_clusters_that_are_as_far_from_each_other_are_found(seed):
    truth = np.repeat(range(4), 50)
    noise = np.random.default_rng(seed).normal(0, 0.2, (200, 8))
    features = np.eye(8)[truth] + noise
    clusters = cluster_tree(features.astype(np.float32), 2, 2, seed=seed)
    assert same_division(clusters, truth)


@pytest.mark.parametrize('seed', range(3))
def test_a_long_cluster_keeps_its_rim(seed):
    """Some of which are nearer to another cluster's mean."""
    generator = np.random.default_rng(seed)
    along, across = np.array([[1, 1], [1, -1]]) / 2**0.5
    spread = generator.normal(0, (2, 0.3), (300, 2))
    features = np.concatenate(
        [spread @ [along, across],
         generator.normal((5, 0), 0.3, (300, 2))]).astype(np.float32)
    truth = np.repeat([0, 1], 300)
    means = np.stack([features[truth == each].mean(0) for each in (0, 1)])
    nearest = np.linalg.norm(features[:, None] - means, axis=2).argmin(1)
    assert (nearest != truth).sum() > 5
    assert same_division(cluster_tree(features, 2, 1, balanced=False), truth)


def test_images_that_are_alike_make_clusters_too():
    clusters = cluster_tree(np.ones((20, 4), np.float32), 2, 2)
    assert np.array_equal(np.bincount(clusters), [5, 5, 5, 5])


def test_balanced_clusters_have_means_of_their_own():
    # What is left over of the many goes to the few, of one side each.
    features = np.concatenate([np.linspace(0, 1, 60), np.linspace(5, 6, 20)])
    clusters = cluster_tree(features[:, None].astype(np.float32), 2, 2)
    # Each cluster is a part of the line, without gaps.
    assert (np.diff(clusters) != 0).sum() == 3


@pytest.mark.parametrize('number', [97, 200])
def test_balanced_clusters_are_of_one_size(number):
    features = np.random.default_rng(0).normal(size=(number, 3))**3
    clusters = cluster_tree(features.astype(np.float32), 4, 2)
    sizes = np.bincount(clusters, minlength=16)
    assert sizes.max() - sizes.min() <= 1
    plain = np.bincount(cluster_tree(features, 4, 2, balanced=False))
    assert plain.max() - plain.min() > 10


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match='15 images cannot make 16 clusters'):
        cluster_tree(np.zeros((15, 2), np.float32), 2, 4)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return build_plain_backbone(
        dict(
            type='SlimResNet',
            block='BasicBlock',
            inner_channels=[4, 8, 16, 32],
            depths=[1, 1, 1, 1],
            stem='small'))


def test_features_are_directions_of_the_networks(backbone, tmp_path,
                                                 monkeypatch):
    monkeypatch.setattr('dspnet_mm.clustering._KEEP_INTERVAL', 40)
    dataset = evaluation_dataset(dict(type='EmbeddedDigits', indices=100), 12)
    path = str(tmp_path / 'features.npy')
    told = []
    features = image_features(
        backbone, dataset, FORMAT, path, progress=told.append)
    assert told == [
        f'features of {number} of 100 images' for number in (40, 80, 100)
    ]
    recalibrate(backbone, [inputs for inputs, _ in iterate(dataset, FORMAT)])
    backbone.eval()
    expected, _ = extract_features(backbone, iterate(dataset, FORMAT))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert features.shape == (100, 32) and features.dtype == np.float32
    assert np.allclose(features, expected, atol=1e-5)
    # What was computed is kept: here, another value in its place.
    features[:] = 7
    features.flush()
    write_json(f'{path}.json', dict(read_json(f'{path}.json'), done=40))
    told.clear()
    again = image_features(
        backbone, dataset, FORMAT, path, progress=told.append)
    assert told == [
        'features of 80 of 100 images', 'features of 100 of 100 images'
    ]
    assert (again[:40] == 7).all()
    assert np.allclose(again[40:], expected[40:], atol=1e-5)
    # Nor what is said of a file that is gone: the next is interrupted before
    # anything is kept.
    os.remove(path)
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr('dspnet_mm.clustering.write_json',
                      mock.Mock(side_effect=InterruptedError))
        image_features(backbone, dataset, FORMAT, path)
    assert not os.path.exists(f'{path}.json')
    # But not that of other weights.
    torch.nn.init.normal_(backbone.conv1.weight)
    other = image_features(
        backbone, dataset, FORMAT, path, progress=told.append)
    assert not (other[:40] == 7).any()


def test_what_cannot_be_read_is_of_a_cluster_too(backbone, tmp_path):
    for number in range(8):
        Image.new('RGB', (16, 16),
                  (30 * number, 9, 99)).save(tmp_path / f'{number}.png')
    (tmp_path / '3.png').write_bytes(b'none')
    dataset = evaluation_dataset(
        dict(type='ImageFolder', data_root=str(tmp_path)), 12)
    features = image_features(backbone, dataset, FORMAT,
                              str(tmp_path / 'features.npy'))
    assert features.shape == (8, 32) and np.isfinite(features).all()


@pytest.mark.parametrize('balanced', [True, False])
def test_clustering_holds_few_numbers_for_each_image(balanced, tmp_path,
                                                     monkeypatch):
    monkeypatch.setattr('dspnet_mm.clustering._CHUNK', 200)
    channels, peaks = 256, []
    for number in (2000, 6000):
        features = np.lib.format.open_memmap(
            str(tmp_path / f'{number}.npy'), 'w+', np.float32,
            (number, channels))
        features[:] = np.random.default_rng(0).normal(
            size=(number, channels)) + np.arange(number)[:, None] % 4
        tracemalloc.start()
        cluster_tree(features, 4, 1, balanced)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Bytes for each further image; its features are 1,024 of them.
    assert (peaks[1] - peaks[0]) / 4000 < 150
