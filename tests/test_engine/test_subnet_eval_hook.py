# Copyright (c) The dspnet_mm authors. All rights reserved.
import random

import cv2
import numpy as np
import pytest
import torch
from conftest import digits_cfg, sdr_cfg, train

from dspnet_mm import InputError
from dspnet_mm.engine import SubnetEvalHook
from dspnet_mm.evaluation.report import evaluate
from dspnet_mm.slimming import export_subnets


def hook_cfg(interval=1, **kwargs):
    return dict(
        type='SubnetEvalHook',
        interval=interval,
        train_dataset=dict(type='EmbeddedDigits', split='train'),
        test_dataset=dict(type='EmbeddedDigits', split='test'),
        **kwargs)


def test_training_and_random_states_are_untouched(tmp_path):
    states = []
    for name, hooks in (('without', []), ('with', [hook_cfg()])):
        runner = train(
            digits_cfg(tmp_path / name, epochs=2, custom_hooks=hooks))
        states.append((runner.model.state_dict(), torch.get_rng_state(),
                       np.random.get_state()[1], random.getstate()))
        assert runner.model.training
    without, with_hook = states
    for key in without[0]:
        assert torch.equal(without[0][key], with_hook[0][key]), key
    assert torch.equal(without[1], with_hook[1])
    assert (without[2] == with_hook[2]).all()
    assert without[3] == with_hook[3]


@pytest.mark.parametrize('make, names', [
    (digits_cfg, ['small', 'tiny']),
    (sdr_cfg, ['unified', 'cluster-2']),
])
def test_accuracies_are_those_of_the_exported_networks(make, names, tmp_path):
    cfg = make(tmp_path, train_dataloader=dict(dataset=dict(indices=None)))
    epochs = cfg.train_cfg.max_epochs
    cfg.custom_hooks.append(hook_cfg(interval=epochs, subnets=names))
    runner = train(cfg)
    logged = {
        name: runner.message_hub.get_scalar(f'knn/{name}').current()
        for name in names
    }
    assert 'knn/large' not in runner.message_hub.log_scalars
    family = runner.model.family
    export_subnets(cfg, str(tmp_path / f'epoch_{epochs}.pth'),
                   {n: family[n]
                    for n in logged}, str(tmp_path / 'exports'))
    for row in evaluate([str(tmp_path / 'exports')], 'digits'):
        assert logged[row['subnet']] == pytest.approx(row['knn'], abs=0.003)
    events = list(tmp_path.glob('*/vis_data/events.out.tfevents*'))
    assert events and f'knn/{names[1]}'.encode() in events[0].read_bytes()


def test_it_runs_at_its_interval_and_after_the_last_epoch(tmp_path):
    runner = train(
        digits_cfg(
            tmp_path,
            epochs=3,
            images=32,
            custom_hooks=[
                dict(hook_cfg(max_train=100, max_test=50), interval=2)
            ]))
    history, _ = runner.message_hub.get_scalar('knn/tiny').data
    assert len(history) == 2


def test_wrong_arguments_show_before_training(tmp_path):
    with pytest.raises(InputError, match='at least 1'):
        SubnetEvalHook({}, {}, interval=0)
    with pytest.raises(InputError, match="'huge'.*large.*tiny"):
        train(digits_cfg(tmp_path, custom_hooks=[hook_cfg(subnets=['huge'])]))
    with pytest.raises(InputError, match='give 1 to 10, the number'):
        train(digits_cfg(tmp_path, custom_hooks=[hook_cfg(max_train=10)]))
    images = tmp_path / 'images'
    images.mkdir()
    for name in 'abc':
        cv2.imwrite(
            str(images / f'{name}.png'), np.zeros((16, 16, 3), np.uint8))
    unlabelled = dict(type='ImageFolder', data_root=str(images))
    with pytest.raises(InputError, match='ImageFolder has no labels'):
        train(
            digits_cfg(
                tmp_path,
                custom_hooks=[dict(hook_cfg(), test_dataset=unlabelled)]))
    assert not list(tmp_path.glob('*.pth'))
