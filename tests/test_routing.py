# Copyright (c) The dspnet_mm authors. All rights reserved.
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import make_family
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from test_grouped_family import make_grouped

from dspnet_mm import InputError
from dspnet_mm.evaluation import extract_features, knn_accuracy
from dspnet_mm.evaluation.probes import leave_one_out_knn_accuracy
from dspnet_mm.models import SlimmableResNet
from dspnet_mm.routing import (METRICS, check_task, linear_score, logme,
                               subnets_features)
from dspnet_mm.slimming import recalibrate, slim

DEEP_AND_FLAT = make_family(
    desired=[dict(name='deep'),
             dict(name='flat', depths=[2, 2, 1, 1])])


@pytest.mark.parametrize(
    'family, switchable_bn, runs',
    [
        # Both stems, with both halves of each first stage and so on.
        (make_grouped(), False, 2 + 2 + 4 + 8 + 16),
        (make_grouped(num_groups=4, levels=2), False, 1 + 1 + 1 + 4 + 16),
        # The largest and what is narrower share nothing.
        (make_family(), False, 3 * 5),
        # Alike but for the depth of the last two.
        (DEEP_AND_FLAT, False, 3 + 2 * 2),
        # Nobody has batch norm in common.
        (DEEP_AND_FLAT, True, 2 * 5),
    ])
def test_features_are_those_of_each_network_alone(family, switchable_bn, runs):
    torch.manual_seed(0)
    backbone = SlimmableResNet(family, switchable_bn=switchable_bn)
    for name, parameter in backbone.named_parameters():
        if parameter.dim() < 4:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    images = torch.rand(20, 3, 12, 12)
    calibration = [*range(3, 15)]
    with mock.patch(
            'dspnet_mm.routing.recalibrate', side_effect=recalibrate) as run:
        found = dict(
            subnets_features(backbone, family.desired, images, calibration, 7))
    assert run.call_count == runs
    assert set(found) == set(family.desired)
    for name, subnet in family.desired.items():
        plain = slim(backbone, subnet)
        recalibrate(plain, [images[calibration]])
        expected, _ = extract_features(plain, [(images, np.zeros(20))])
        assert np.allclose(found[name], expected, atol=1e-5)


def evidence(features, wanted, alpha, beta):
    """Of all that is random, written out."""
    covariance = np.eye(len(wanted)) / beta + features @ features.T / alpha
    return multivariate_normal(cov=covariance).logpdf(wanted) / len(wanted)


@pytest.mark.parametrize('channels', [4, 40])
def test_logme_is_the_largest_evidence(channels):
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = generator.normal(size=(30, channels))
    features[:, :3] += 2 * np.eye(3)[labels]
    searched = []
    for label in range(3):
        wanted = (labels == label).astype(float)
        grid = np.logspace(-3, 4, 60)
        searched.append(
            max(
                evidence(features, wanted, alpha, beta) for alpha in grid
                for beta in grid))
    assert logme(features, labels) == pytest.approx(
        np.mean(searched), abs=0.01)
    assert logme(features, labels) >= np.mean(searched) - 1e-6


def test_logme_of_features_that_say_nothing():
    labels = np.arange(30) % 3
    nothing = np.zeros((30, 4))
    wanted = (labels == 0).astype(float)
    # Whatever the weights' precision.
    searched = max(
        evidence(nothing, wanted, 1., beta)
        for beta in np.logspace(-3, 4, 600))
    assert logme(nothing, labels) == pytest.approx(searched, abs=1e-3)
    features = np.random.default_rng(0).normal(size=(30, 4))
    assert logme(features, labels) > logme(nothing, labels)


def test_better_features_score_higher():
    images, labels = load_digits(return_X_y=True)
    images, labels = images[:500].astype(np.float32), labels[:500]
    noise = np.random.default_rng(0).normal(0, 16, images.shape)
    noisy = (images + noise).astype(np.float32)
    for score in (leave_one_out_knn_accuracy, linear_score, logme):
        assert score(images, labels) > score(noisy, labels)


def test_a_linear_score_is_of_images_that_it_did_not_learn_from():
    features = np.random.default_rng(0).normal(size=(60, 80))
    assert linear_score(features, np.arange(60) % 2) < 0.75


def test_each_image_is_classified_by_all_others(monkeypatch):
    monkeypatch.setattr('dspnet_mm.evaluation.probes._LEAVE_ONE_OUT_ROWS', 7)
    images, labels = load_digits(return_X_y=True)
    images = images[:60].astype(np.float32) - 8
    # Any values will do for labels.
    labels = 3 * labels[:60] + 5
    expected = np.mean([
        knn_accuracy((np.delete(images, i, 0), np.delete(labels, i)),
                     (images[i:i + 1], labels[i:i + 1]),
                     k=5) for i in range(60)
    ])
    assert 0 < expected < 1
    assert leave_one_out_knn_accuracy(images, labels, k=5) == expected
    with pytest.raises(InputError, match='1 to 59'):
        leave_one_out_knn_accuracy(images, labels, k=60)


@pytest.mark.parametrize('labels, complaint', [
    ([0] * 50, 'mine has 1 class.*at least 2'),
    ([0] * 50 + [1, 1], r'2 image\(s\) of the class dog.*at least 3'),
    ([0, 1] * 10, 'has 20 images, not more than the k=20'),
])
def test_what_is_no_task_is_refused(labels, complaint):
    with pytest.raises(InputError, match=complaint):
        check_task(np.array(labels), ('cat', 'dog'), 'knn', 'mine')


@pytest.mark.parametrize('metric', ['linear', 'logme'])
def test_only_neighbours_need_more_images_than_they_are(metric):
    labels = np.array([0, 1] * 10)
    check_task(labels, ('cat', 'dog'), metric, 'mine')
    assert np.isfinite(METRICS[metric](np.eye(20), labels))
