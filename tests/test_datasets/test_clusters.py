# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler
from PIL import Image
from torch.utils.data import TensorDataset

from dspnet_mm import InputError
from dspnet_mm.datasets import (ClusterBatchSampler, EmbeddedDigits,
                                ImageFolder, Part, ResumableSampler,
                                read_clusters, write_clusters)
from dspnet_mm.datasets.clusters import shares

# A third of the images in one cluster, and few in another.
CLUSTERS = np.repeat([0, 1, 2, 3], [30, 50, 10, 6])
PHASES = [
    dict(levels=0, until=0.25),
    dict(levels=1, until=0.5),
    dict(levels=2, until=1)
]


@pytest.fixture
def dataset():
    return EmbeddedDigits(indices=len(CLUSTERS))


@pytest.fixture
def clusters(dataset, tmp_path):
    path = str(tmp_path / 'clusters.csv')
    write_clusters(path, dataset, CLUSTERS)
    return path


def sampler_of(dataset, rank=0, world_size=1):
    with mock.patch(
            'mmengine.dataset.sampler.get_dist_info',
            return_value=(rank, world_size)):
        return ResumableSampler(dataset, seed=5)


def make(dataset, clusters, epoch=0, rank=0, world_size=1, **kwargs):
    sampler = sampler_of(dataset, rank, world_size)
    arguments = dict(batch_size=8, num_groups=2, phases=PHASES)
    arguments.update(kwargs)
    batches = ClusterBatchSampler(sampler, clusters=clusters, **arguments)
    batches.max_epochs = 8
    sampler.set_epoch(epoch)
    return batches


@pytest.mark.parametrize('start', [0, 5])
def test_processes_draw_what_one_would(dataset, start):
    """Each image of an epoch, with the same key for its views."""
    one = sampler_of(dataset)
    one.start = 3 * start
    ranks = [sampler_of(dataset, rank, 3) for rank in range(3)]
    for sampler in ranks:
        sampler.start = start
    drawn = [(int(draw), draw.key) for draw in one]
    assert len({key for _, key in drawn}) == len(CLUSTERS) - 3 * start
    assert drawn == [(int(draw), draw.key) for together in zip(*ranks)
                     for draw in together]


@pytest.mark.parametrize('epoch, levels', [(0, 0), (1, 0), (2, 1), (4, 2),
                                           (7, 2)])
def test_each_image_comes_once_in_a_batch_of_its_cluster(
        dataset, clusters, epoch, levels):
    batches = make(dataset, clusters, epoch)
    drawn = list(batches)
    assert len(drawn) == len(batches) == 12
    assert sorted(index for batch in drawn
                  for index in batch) == list(range(96))
    below = 2**(2 - levels)
    for batch in drawn:
        part, = {draw.part for draw in batch}
        assert part.levels == levels
        assert {CLUSTERS[draw] // below
                for draw in batch} == {part.cluster // below}
        assert part.cluster % below == 0
        assert len(batch) >= 6
    assert len({draw.part for batch in drawn for draw in batch}) == 2**levels
    # Each view depends on its own place.
    assert len({draw.key for batch in drawn for draw in batch}) == 96


def test_order_depends_on_seed_and_epoch_alone(dataset, clusters):
    first = list(make(dataset, clusters, 4))
    assert first == list(make(dataset, clusters, 4))
    assert first != list(make(dataset, clusters, 5))
    # Clusters do not come one after the other.
    order = [batch[0].part.cluster for batch in first]
    assert order != sorted(order)
    # Of each about as many in the first half as in the second.
    for cluster in set(order):
        assert abs(order[:6].count(cluster) - order[6:].count(cluster)) <= 1


def test_an_epoch_can_begin_within(dataset, clusters):
    whole = list(make(dataset, clusters, 4))
    rest = make(dataset, clusters, 4)
    rest.sampler.start = 5 * rest.batch_size
    assert [[(draw, draw.key) for draw in batch] for batch in rest
            ] == [[(draw, draw.key) for draw in batch] for batch in whole[5:]]


def test_processes_share_each_batch(dataset, clusters):
    one = list(make(dataset, clusters, 4, batch_size=16))
    two = [
        list(make(dataset, clusters, 4, rank, world_size=2)) for rank in (0, 1)
    ]
    assert len(one) == len(two[0]) == len(two[1]) > 4
    for batch, *halves in zip(one, *two):
        assert sorted(batch) == sorted(halves[0] + halves[1])
        assert {draw.part
                for draw in halves[0]} == {draw.part
                                           for draw in halves[1]}


def test_the_data_sample_says_which_part(dataset, clusters):
    dataset.pipeline = mock.Mock(
        side_effect=lambda data: dict(data_samples=mock.Mock()))
    batch = next(iter(make(dataset, clusters, 4)))
    sample = dataset[batch[0]]['data_samples']
    sample.set_metainfo.assert_called_once_with(
        dict(cluster=batch[0].part.cluster, levels=2))
    assert isinstance(batch[0].part, Part)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=20),
    st.integers(0, 100))
def test_shares_add_up(sizes, more):
    total = len(sizes) + more
    result = shares(sizes, total)
    assert sum(result) == total and min(result) >= 1
    for size, share in zip(sizes, result):
        exact = total * size / sum(sizes)
        assert share == 1 or share <= exact + 1


def test_a_list_names_files(tmp_path):
    for name in ('b.png', 'cats/a.png', 'cats/c, d.png', 'cats/e.png'):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(path)
    dataset = ImageFolder(str(tmp_path / 'images'))
    path = tmp_path / 'clusters.csv'
    write_clusters(str(path), dataset, [1, 0, 1, 0])
    assert path.read_bytes() == (b'image,cluster\nb.png,1\ncats/a.png,0\n'
                                 b'"cats/c, d.png",1\ncats/e.png,0\n')
    assert read_clusters(str(path), dataset, 2).tolist() == [1, 0, 1, 0]
    # In whatever encoding.
    Image.new('RGB', (4, 4)).save(
        os.path.join(str(tmp_path), 'images', os.fsdecode(b'caf\xe9.png')))
    dataset = ImageFolder(str(tmp_path / 'images'))
    write_clusters(str(path), dataset, [1, 1, 0, 1, 0])
    assert b'\ncaf\xe9.png,1' in path.read_bytes()
    assert read_clusters(str(path), dataset, 2).tolist() == [1, 1, 0, 1, 0]


@pytest.mark.parametrize('change, complaint', [
    (lambda text: text.replace('image,', 'file,'), 'first line .*image,clust'),
    (lambda text: '', 'first line .*image,cluster'),
    (lambda text: text.replace('\n7,0', ''), 'no cluster for 1 of 96.*7'),
    (lambda text: text.replace('\n7,0', '\n7'), 'line 9, is no image'),
    (lambda text: text.replace('\n7,0', '\n7,zero'), 'line 9, is no image'),
    (lambda text: text.replace('\n7,0', '\n7,0\n6,1'),
     'line 10, .*6 is listed before.*one for each image'),
    (lambda text: text.replace('\n7,0', '\n7,4'),
     'cluster 4.*0 to 3.*num_groups'),
    (lambda text: text.replace('\n7,0', '\n7,-1'), 'cluster -1.*0 to 3'),
    (lambda text: text.replace(',3', ',2'), 'cluster 3 has 0 image'),
    (lambda text: text.replace(',3', ',2').replace('\n95,2', '\n95,3'),
     'cluster 3 has 1 image'),
])
def test_a_wrong_list_is_refused(dataset, clusters, change, complaint):
    with open(clusters) as file:
        text = file.read()
    with open(clusters, 'w') as file:
        file.write(change(text))
    with pytest.raises(InputError, match=complaint) as error:
        read_clusters(clusters, dataset, 4)
    assert '\n' not in str(error.value)


def test_clusters_whose_batches_would_be_large_are_refused(dataset, tmp_path):
    path = str(tmp_path / 'clusters.csv')
    # Of twelve batches the largest gets five.
    write_clusters(path, dataset, np.repeat(range(8), [82, *[2] * 7]))
    phases = [dict(levels=3, until=1)]
    with pytest.raises(InputError, match='82 images .* each has 17, more'):
        next(iter(make(dataset, path, phases=phases)))
    # One more would be enough.
    write_clusters(path, dataset, np.repeat(range(8), [80, 4, *[2] * 6]))
    next(iter(make(dataset, path, phases=phases)))


@pytest.mark.parametrize('settings, complaint', [
    (dict(phases=[dict(levels=2, until=0.5),
                  dict(levels=1, until=1)]), 'do not decrease'),
    (dict(phases=[dict(levels=-1, until=1)]), 'do not decrease'),
    (dict(phases=[dict(until=1)]), 'do not decrease'),
    (dict(phases=[dict(levels=1, until=0.9)]), 'the last one 1'),
    (dict(phases=[dict(levels=4, until=1)]), '12 batches.*16 clusters'),
])
def test_wrong_settings_are_refused(dataset, clusters, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        make(dataset, clusters, **settings)


def test_what_is_missing_is_said(dataset, clusters, tmp_path):
    with pytest.raises(InputError, match='ClusterHook'):
        next(iter(make(dataset, None, 4)))
    with pytest.raises(InputError, match='nowhere.csv is no file'):
        next(iter(make(dataset, str(tmp_path / 'nowhere.csv'), 4)))
    with pytest.raises(InputError, match='set .*dataset.type=ImageFolder'):
        make(TensorDataset(torch.rand(96)), clusters)
    with pytest.raises(InputError, match='ResumableSampler'):
        ClusterBatchSampler(DefaultSampler(dataset), 8, 2, PHASES)
    batches = make(dataset, clusters)
    batches.max_epochs = None
    with pytest.raises(InputError, match='ResumableTrainLoop'):
        next(iter(batches))
    # Each process needs two images of each cluster.
    with pytest.raises(InputError, match='fewer than 8'):
        next(iter(make(dataset, clusters, 4, 0, 4, batch_size=2)))
