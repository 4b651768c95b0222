# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_family
from mmselfsup.evaluation.functional import knn_eval
from sklearn.linear_model import LogisticRegression
from torch.func import functional_call
from torch.nn import functional as F

from dspnet_mm import InputError
from dspnet_mm.evaluation import (ImageFormat, evaluation_dataset,
                                  extract_features, finetuned_accuracy,
                                  iterate, knn_accuracy, linear_accuracy, pick,
                                  pick_balanced)
from dspnet_mm.evaluation.probes import joint_linear_accuracies
from dspnet_mm.models import JointLinearHead, SlimmableResNet
from dspnet_mm.slimming import slim


def blobs(number, seed, noise=3.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, number)
    centres = np.random.default_rng(99).normal(size=(5, 16))
    features = centres[labels] + noise * generator.normal(size=(number, 16))
    return features.astype(np.float32), labels


@pytest.mark.parametrize('k', [1, 5, 20])
def test_knn_is_mmselfsups(k):
    train, test = blobs(300, 0), blobs(200, 1)
    tensors = [
        torch.from_numpy(array)
        for array in (train[0] /
                      np.linalg.norm(train[0], axis=1, keepdims=True),
                      train[1], test[0] /
                      np.linalg.norm(test[0], axis=1, keepdims=True), test[1])
    ]
    upstream, _ = knn_eval(*tensors, k, 0.07, num_classes=5)
    assert 0.3 < upstream / 100 < 0.95
    assert knn_accuracy(train, test, k) == pytest.approx(upstream / 100)


def test_probes_tell_features_from_noise():
    train, test = blobs(300, 0, noise=0.3), blobs(200, 1, noise=0.3)
    assert knn_accuracy(train, test) > 0.99
    assert linear_accuracy(train, test) > 0.99
    noise = np.random.default_rng(0).normal(size=(200, 16))
    assert linear_accuracy(train, (noise, test[1])) < 0.4


def test_a_linear_probe_does_not_depend_on_the_features_scale():
    (train, labels), (test, wanted) = blobs(60, 0), blobs(200, 1)
    scale = np.ones(train.shape[1])
    scale[0] = 1e4
    expected = linear_accuracy((train, labels), (test, wanted))
    assert 0.3 < expected < 1
    assert linear_accuracy((train * scale, labels),
                           (test * scale, wanted)) == expected


def test_a_linear_probe_is_scikit_learns_with_its_penalty():
    (train, labels), (test, wanted) = blobs(60, 0), blobs(400, 1)
    mean, std = train.mean(0), train.std(0)
    expected, weaker = (
        LogisticRegression(C=c, max_iter=1000).fit(
            (train - mean) / std, labels).score((test - mean) / std, wanted)
        for c in (1., 100.))
    assert expected != weaker
    assert linear_accuracy((train, labels), (test, wanted)) == expected
    # Jointly, of one network there is nothing else.
    jointly, = joint_linear_accuracies([(train, labels)], [(test, wanted)],
                                       True, 0)
    assert jointly == pytest.approx(expected, abs=0.003)
    assert abs(jointly - expected) < abs(jointly - weaker)


@pytest.mark.parametrize('k', [0, 301])
def test_a_wrong_number_of_neighbours_is_refused(k):
    with pytest.raises(InputError, match='1 to 300'):
        knn_accuracy(blobs(300, 0), blobs(10, 1), k)


def test_features_are_pooled_over_the_image():
    plain = slim(SlimmableResNet(make_family()), make_family()['tiny'])
    images = torch.rand(5, 3, 16, 16)
    features, labels = extract_features(plain, [(images[:3], np.arange(3)),
                                                (images[3:], np.arange(3, 5))])
    assert features.shape == (5, 16) and list(labels) == [0, 1, 2, 3, 4]
    expected = plain(images)[-1].mean((2, 3)).detach().numpy()
    assert features == pytest.approx(expected, abs=1e-6)


def test_images_are_normalised_as_in_training():
    image_format = ImageFormat.from_config(
        dict(mean=[10, 20, 30], std=[2, 3, 4], bgr_to_rgb=True), 8)
    images = np.random.default_rng(0).integers(
        0, 255, (2, 8, 8, 3), dtype=np.uint8)
    expected = (images[..., ::-1] - np.array([10, 20, 30])) / [2, 3, 4]
    assert image_format.normalise(images).numpy() == pytest.approx(
        expected.transpose(0, 3, 1, 2), abs=1e-5)
    assert image_format == ImageFormat.from_config(
        dict(mean=[10, 20, 30], std=[2, 3, 4], rgb_to_bgr=True), 8)
    plain = ImageFormat.from_config(None, 8)
    assert plain.normalise(images).numpy() == pytest.approx(
        images.transpose(0, 3, 1, 2))


def test_what_is_put_together_is_refused():
    parts = [dict(type='EmbeddedDigits', split='test')] * 2
    with pytest.raises(InputError, match='cannot be used.*pipeline'):
        evaluation_dataset(dict(type='ConcatDataset', datasets=parts), 16)


def test_evaluation_sees_whole_images_in_order_without_random_numbers():
    dataset = evaluation_dataset(dict(type='EmbeddedDigits', split='test'), 16)
    before = torch.get_rng_state()
    batches = list(iterate(dataset, ImageFormat(16)))
    assert torch.equal(torch.get_rng_state(), before)
    labels = np.concatenate([labels for _, labels in batches])
    assert list(labels) == [
        dataset.get_data_info(i)['gt_label'] for i in range(500)
    ]
    assert batches[0][0].shape[1:] == (3, 16, 16)
    some = pick(dataset, 10, seed=0)
    assert some == pick(dataset, 10, seed=0) != pick(dataset, 10, seed=1)
    assert len(pick(dataset, 10**6, seed=0)) == 500
    (inputs, chosen), = iterate(dataset, ImageFormat(16), some)
    assert list(chosen) == list(labels[some])
    assert torch.equal(inputs[3], batches[0][0][some[3]])
    (workers, _), = iterate(dataset, ImageFormat(16), some, num_workers=2)
    assert torch.equal(inputs, workers)


def test_a_balanced_pick_has_its_part_of_each_class():
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    chosen = pick_balanced(labels, 0.1, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [20, 4, 1]
    assert chosen == sorted(set(chosen))
    assert chosen == pick_balanced(labels, 0.1, seed=0)
    assert chosen != pick_balanced(labels, 0.1, seed=1)


def test_fine_tuning_learns_what_a_frozen_network_cannot(family):
    torch.manual_seed(0)
    plain = slim(SlimmableResNet(family), family['middle'])
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(160, 3, 8, 8, generator=generator)
    labels = np.arange(160) % 2
    # What tells the classes apart is a pattern, not a mean.
    inputs[1::2, :, ::2] += 0.5
    inputs[1::2, :, 1::2] -= 0.5
    train, test = (inputs[:60], labels[:60]), (inputs[60:], labels[60:])
    accuracy = finetuned_accuracy(plain, train, test)
    assert accuracy > 0.9
    assert finetuned_accuracy(plain, train, test) == accuracy
    # Labels at random leave nothing to be learned.
    chance = np.random.default_rng(0).integers(0, 2, 60)
    assert finetuned_accuracy(plain, (inputs[:60], chance), test) < 0.75
    for key, value in plain.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_fine_tuning_is_the_protocol_written_out(family, monkeypatch):
    """Of fewer images than make a batch, whose order does not count then."""
    torch.manual_seed(0)
    plain = slim(SlimmableResNet(family), family['tiny']).eval()
    inputs, labels = torch.rand(40, 3, 8, 8), np.arange(40) % 2
    weights = [
        value.detach().clone().requires_grad_()
        for value in plain.parameters()
    ]
    head = [torch.zeros(2, 16), torch.zeros(2)]
    weights += [value.requires_grad_() for value in head]
    names = [name for name, _ in plain.named_parameters()]
    rates = [0.05] * len(names) + [0.2] * 2
    momenta = [torch.zeros_like(value) for value in weights]
    for step in range(60):
        features = functional_call(plain, dict(zip(names, weights)), inputs)
        loss = F.cross_entropy(
            F.linear(features[-1].mean((2, 3)), *weights[-2:]),
            torch.from_numpy(labels))
        grads = torch.autograd.grad(loss, weights)
        norm = sum(grad.square().sum() for grad in grads).sqrt()
        with torch.no_grad():
            for value, grad, momentum, rate in zip(weights, grads, momenta,
                                                   rates):
                grad = grad / max(norm, 1) + 5e-4 * value
                momentum.mul_(0.9).add_(grad)
                rate *= (1 + np.cos(np.pi * step / 60)) / 2
                value -= rate * momentum
    copies = []

    def keep(network):
        copies.append(copy.deepcopy(network))
        return copies[0]

    monkeypatch.setattr('dspnet_mm.evaluation.finetune.copy',
                        SimpleNamespace(deepcopy=keep))
    finetuned_accuracy(plain, (inputs, labels), (inputs, labels))
    for name, value, start in zip(names, weights, plain.parameters()):
        found = copies[0].get_parameter(name)
        moved = (value - start).norm()
        assert moved > 0, name
        assert (found - value).norm() < 0.01 * moved, name
    for name, value in plain.named_buffers():
        assert torch.equal(copies[0].get_buffer(name), value), name


@pytest.mark.parametrize('switchable', [True, False])
def test_joint_classifiers_learn_from_the_largest(switchable):
    torch.manual_seed(0)
    head = JointLinearHead([6, 4, 2], 3, switchable)
    features = [torch.randn(5, channels) for channels in (6, 4, 2)]
    labels = torch.tensor([0, 1, 2, 1, 0])
    layers = [head.layers[index if switchable else 0] for index in range(3)]
    logits = [
        each.numpy().astype(float)
        @ layer.weight.detach().numpy()[:, :each.shape[1]].T +
        layer.bias.detach().numpy() for each, layer in zip(features, layers)
    ]
    softmax = [
        np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in logits
    ]
    expected = [
        -np.log(softmax[0][range(5), labels]).mean(),
        *((-np.log(each[range(5), labels]).mean() -
           (softmax[0] * np.log(each)).sum(1).mean()) / 2
          for each in softmax[1:])
    ]
    losses = head.losses(features, labels)
    assert [float(loss) for loss in losses] == pytest.approx(
        expected, rel=1e-5)
    # The largest learns nothing from the others.
    losses[2].backward()
    largest = head.layers[0].weight.grad
    if switchable:
        assert largest is None
    else:
        assert largest[:, :2].abs().min() > 0 and not largest[:, 2:].any()


@pytest.mark.parametrize('arguments', [([], 2, True), ([4], 1, True),
                                       ([2, 4], 3, False)])
def test_wrong_joint_classifiers_are_refused(arguments):
    with pytest.raises(InputError, match='in_channels='):
        JointLinearHead(*arguments)


def test_one_matrix_does_not_serve_all_networks():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    signal = 2. * labels[:, None] - 1
    noise = generator.normal(size=(3, 400, 2))
    # The same input says one thing in one network, the reverse in another.
    networks = [
        np.concatenate([signal + noise[0][:, :1], noise[1]], axis=1),
        -signal + noise[2][:, :1]
    ]
    train, test = ([(features[part], labels[part]) for features in networks]
                   for part in (slice(200), slice(200, None)))
    own, shared = (
        joint_linear_accuracies(train, test, switchable, seed=0)
        for switchable in (True, False))
    alone = [linear_accuracy(*each) for each in zip(train, test)]
    assert own == pytest.approx(alone, abs=0.02)
    assert min(shared) < min(own) - 0.1
