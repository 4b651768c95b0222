# Copyright (c) The dspnet_mm authors. All rights reserved.
import os

import numpy as np
import pytest
import torch
from conftest import digits_cfg, sdr_cfg, train
from PIL import Image

from dspnet_mm import InputError
from dspnet_mm.datasets import EmbeddedDigits, read_clusters, write_clusters


@pytest.mark.smoke
def test_clusters_are_made_when_they_begin_to_count(trained_sdr):
    runner, folder = trained_sdr.runner, trained_sdr.folder
    dataset = runner.train_dataloader.dataset
    clusters = read_clusters(str(folder / 'clusters.csv'), dataset, 4)
    assert np.bincount(clusters).tolist() == [40] * 4
    with Image.open(folder / 'clusters.png') as picture:
        assert picture.width == 1200
    assert runner.model.levels == 2
    assert not [name for name in os.listdir(folder) if 'features' in name]


# In the first phase, at the end of it, and within the first epoch in which
# clusters count.
@pytest.mark.parametrize('iteration', [4, 10, 12])
def test_a_resumed_run_is_the_uninterrupted_one(trained_sdr, tmp_path,
                                                iteration):
    runner, folder = trained_sdr.runner, trained_sdr.folder
    if iteration > 10:
        # As in the work directory that it was interrupted in.
        (tmp_path / 'clusters.csv').write_bytes(
            (folder / 'clusters.csv').read_bytes())
    cfg = sdr_cfg(
        tmp_path, resume=True, load_from=f'{folder}/iter_{iteration}.pth')
    resumed = train(cfg)
    assert resumed.iter == runner.iter == 20
    assert (tmp_path / 'clusters.csv').read_bytes() == \
        (folder / 'clusters.csv').read_bytes()
    for key, tensor in runner.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], tensor), key


def test_a_list_that_is_lost_is_missed(trained_sdr, tmp_path):
    cfg = sdr_cfg(
        tmp_path,
        resume=True,
        load_from=str(trained_sdr.folder / 'iter_12.pth'))
    with pytest.raises(InputError, match='clusters.csv is no file'):
        train(cfg)


def test_a_list_that_changed_is_refused(trained_sdr, tmp_path):
    own = np.arange(160) % 4
    write_clusters(
        str(tmp_path / 'clusters.csv'), EmbeddedDigits(indices=160), own)
    cfg = sdr_cfg(
        tmp_path,
        resume=True,
        load_from=str(trained_sdr.folder / 'iter_12.pth'))
    with pytest.raises(InputError, match='not the list that the run began'):
        train(cfg)


def test_clusters_of_ones_own_are_kept(tmp_path):
    path = str(tmp_path / 'own.csv')
    own = np.arange(160) % 4
    write_clusters(path, EmbeddedDigits(indices=160), own)
    cfg = sdr_cfg(tmp_path / 'run')
    cfg.train_dataloader.batch_sampler.clusters = path
    batches = train(cfg).train_dataloader.batch_sampler
    assert not (tmp_path / 'run' / 'clusters.csv').exists()
    for batch in batches:
        assert {own[draw] for draw in batch} == {batch[0].part.cluster}


@pytest.mark.parametrize('changes, complaint', [
    ({
        'train_dataloader.batch_sampler.clusters': 'nowhere.csv'
    }, 'nowhere.csv is no file'),
    ({
        'model.family.levels': 1
    }, 'num_groups=2 and 2 levels.*levels=1'),
    ({
        'custom_hooks': []
    }, 'ClusterHook.*is missing'),
    ({
        'optim_wrapper.accumulative_counts': 2
    }, 'accumulative_counts=1'),
])
def test_what_does_not_fit_is_refused_before_work(tmp_path, changes,
                                                  complaint):
    with pytest.raises(InputError, match=complaint):
        train(sdr_cfg(tmp_path, **changes))
    assert not list(tmp_path.glob('*.pth'))


def test_other_methods_have_no_clusters(tmp_path):
    cfg = digits_cfg(tmp_path)
    cfg.custom_hooks = [dict(type='ClusterHook')]
    with pytest.raises(InputError, match='ClusterHook is for SDR'):
        train(cfg)
