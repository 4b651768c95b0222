# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy

import numpy as np
import pytest
import torch
from conftest import model_cfg
from mmengine.optim import OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample

from dspnet_mm import InputError
from dspnet_mm.models import activate

FAMILY = dict(
    type='GroupedResNetFamily',
    depth=18,
    base_channels=8,
    shared_channels=4,
    num_groups=2,
    levels=2,
    stem='small',
    input_size=12)


def build(**kwargs):
    torch.manual_seed(0)
    settings = dict(
        type='SDR',
        family=FAMILY,
        sampler=dict(type='ClusterSampler'),
        base_momentum=0.9,
        momentum_schedule='constant')
    settings.update(kwargs)
    model = MODELS.build(model_cfg(**settings))
    model.init_weights()
    return model


def wrapper_of(model):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def batch(cluster, levels, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    views = [
        torch.rand(size, 3, 12, 12, generator=generator) for _ in range(2)
    ]
    sample = SelfSupDataSample(metainfo=dict(cluster=cluster, levels=levels))
    return dict(inputs=views, data_samples=[sample] * size)


def projections(model, subnet, network, views):
    with torch.no_grad(), activate(subnet, *network):
        return [network(view)[0] for view in views]


def directions(values):
    values = values.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_one_network_learns_until_clusters_count():
    model = build()
    before = copy.deepcopy(model.backbone.state_dict())
    logged = model.train_step(batch(3, 0), wrapper_of(model))
    assert {'loss', 'loss_cluster-0', 'spread_cluster-0'} == set(logged)
    weight = model.backbone.conv1.weight
    changed = (weight != before['conv1.weight']).flatten(1).any(1)
    assert torch.equal(changed, torch.arange(8) < 6)
    assert model.levels == 0


@pytest.mark.parametrize('weight, levels, groups', [(0., 2, (0, 0, 1, 1)),
                                                    (0.3, 2, (0, 0, 1, 1)),
                                                    (1., 2, (0, 0, 1, 1)),
                                                    (0.3, 4, (1, 1, 0, 0))])
def test_the_loss_is_numpys(weight, levels, groups):
    """Towards the mean of the two targets' directions, both ways round."""
    model = build(
        family=dict(FAMILY, levels=levels), distillation_weight=weight)
    wrapper = wrapper_of(model)
    # All networks become different ones.
    parts = ((0, 0), (0, 1), (2, 1), (3, levels), (1, levels))
    for step, part in enumerate(parts):
        model.train_step(batch(*part, seed=step), wrapper)
    data = batch(3, levels, seed=9)
    views, subnet = data['inputs'], model.family.subnet_of(3)
    assert subnet.groups == groups
    own, unified = (list(
        map(directions, projections(model, each, network, views)))
                    for each, network in ((subnet, model.target_net),
                                          (model.unified, model.unified_net)))
    assert not np.allclose(own[0], unified[0], atol=0.01)
    mixed = [(1 - weight) * a + weight * b for a, b in zip(own, unified)]
    online = torch.nn.Sequential(model.backbone, model.neck)
    with torch.no_grad():
        predictions = [
            directions(model.head.predictor([projection])[0])
            for projection in projections(model, subnet, online, views)
        ]
    expected = 0
    for prediction, target in zip(predictions, mixed[::-1]):
        target = target / np.linalg.norm(target, axis=1, keepdims=True)
        expected -= 2 * (prediction * target).sum(1).mean()
    logged = model.train_step(data, wrapper)
    assert logged['loss'].item() == pytest.approx(expected, abs=1e-5)


def test_subnets_begin_as_copies_of_what_they_were_part_of():
    model = build()
    wrapper = wrapper_of(model)
    for step in range(2):
        model.train_step(batch(0, 0, seed=step), wrapper)
    model.train_step(batch(0, 1, seed=2), wrapper)
    model.train_step(batch(2, 1, seed=3), wrapper)
    views = batch(0, 0, seed=9)['inputs']
    for network in (torch.nn.Sequential(model.backbone,
                                        model.neck), model.target_net):
        outputs = {
            cluster:
            projections(model, model.family.subnet_of(cluster, 1), network,
                        views)
            for cluster in (0, 2)
        }
        assert not torch.allclose(outputs[0][0], outputs[2][0], atol=1e-3)
        divided = copy.deepcopy(model)
        divided._divide(2)
        copied = torch.nn.Sequential(divided.backbone, divided.neck) \
            if network is not model.target_net else divided.target_net
        for cluster in range(4):
            after = projections(divided, divided.family.subnet_of(cluster),
                                copied, views)
            for one, other in zip(after, outputs[cluster // 2 * 2]):
                assert torch.allclose(one, other, atol=1e-6)


def test_the_target_follows_where_it_was_trained():
    model = build()
    wrapper = wrapper_of(model)
    model.train_step(batch(0, 2), wrapper)
    name = 'layer4.1.conv1.weight'

    def weight(network):
        return dict(network.named_parameters())[name].detach().clone()

    before = weight(model.target_net[0])
    # What is not trained may differ from its target for long.
    with torch.no_grad():
        model.backbone.layer4[1].conv1.weight.add_(1.)
    subnet = model.family.subnet_of(2)
    assert subnet.groups[-1] == 1
    model.train_step(batch(2, 2, seed=1), wrapper)
    after, online = weight(model.target_net[0]), weight(model.backbone)
    used = torch.zeros(64, 64, dtype=torch.bool)
    channels = torch.tensor([*range(32), *range(48, 64)])
    used[channels[:, None], channels] = True
    assert torch.equal(after[~used], before[~used])
    assert torch.allclose(
        after[used], 0.9 * before[used] + 0.1 * online[used], atol=1e-6)


def test_the_unified_network_follows_whoever_was_trained():
    model = build()
    wrapper = wrapper_of(model)
    model.train_step(batch(0, 0), wrapper)
    target = copy.deepcopy(model.target_net)

    def unified(name):
        return dict(model.unified_net.named_parameters())[name].clone()

    # From the target network's, when clusters begin to count.
    name = '0.layer4.1.conv1.weight'
    start = dict(target.named_parameters())[name][:48, :48]
    expected = start.detach()
    for step, cluster in enumerate((3, 1, 2)):
        model.train_step(batch(cluster, 2, seed=step), wrapper)
        online = model.backbone.layer4[1].conv1.weight.detach()
        group = model.family.subnet_of(cluster).groups[-1]
        used = [*range(32), *range(32 + 16 * group, 48 + 16 * group)]
        expected = 0.9 * expected + 0.1 * online[used][:, used]
        assert torch.allclose(unified(name)[:48, :48], expected, atol=1e-6)
    # What no unified network has is not touched.
    assert torch.equal(
        unified(name)[48:],
        dict(target.named_parameters())[name][48:])


def test_clusters_that_count_are_part_of_the_state():
    model = build()
    model.train_step(batch(1, 2), wrapper_of(model))
    other = build()
    other.load_state_dict(model.state_dict())
    assert other.levels == 2
    # A network that goes on is not divided again.
    before = copy.deepcopy(other.state_dict())
    other.train_step(
        batch(1, 2), OptimWrapper(torch.optim.SGD(other.parameters(), lr=0.)))
    assert torch.equal(other.backbone.layer4[1].conv1.weight,
                       before['backbone.layer4.1.conv1.weight'])


def test_what_has_not_parted_is_one():
    model = build()
    wrapper = wrapper_of(model)
    groups = {}
    for levels in range(3):
        model.train_step(batch(0, levels, seed=levels), wrapper)
        groups[levels] = [
            model.as_trained(subnet).groups
            for subnet in model.family.desired.values()
        ]
    assert groups[0] == [(0, 0, 0, 0)] * 4
    assert groups[1] == [(0, 0, 0, 0)] * 2 + [(0, 0, 0, 1)] * 2
    assert len({*groups[2]}) == 4
    assert model.as_trained(model.family.full) == model.family.full


def test_a_phase_that_is_over_is_refused():
    model = build()
    wrapper = wrapper_of(model)
    model.train_step(batch(0, 2), wrapper)
    with pytest.raises(
            InputError,
            match='2 levels already.*max_epochs.*before they parted'):
        model.train_step(batch(0, 1), wrapper)


@pytest.mark.parametrize('samples', [
    [SelfSupDataSample()] * 16,
    batch(0, 2)['data_samples'][:8] + batch(1, 2)['data_samples'][:8],
])
def test_a_batch_of_no_one_cluster_is_refused(samples):
    model = build()
    data = dict(batch(0, 0), data_samples=samples)
    with pytest.raises(InputError, match='ClusterBatchSampler'):
        model.train_step(data, wrapper_of(model))


@pytest.mark.parametrize('settings, complaint', [
    (dict(sampler=dict(type='SandwichSampler')), 'sampler.type=ClusterSamp'),
    (dict(sampler=dict(type='AllDesiredSampler')), 'sampler.type=ClusterSa'),
    (dict(family=model_cfg()['family']), 'type=GroupedResNetFamily'),
    (dict(distillation_weight=1.5), r'1.5.*\[0, 1\]'),
    (dict(target='twin'), 'takes no target'),
    (dict(distillation='online'), 'takes no distillation'),
    (dict(switchable_bn=True), 'switchable_bn'),
])
def test_wrong_settings_are_refused(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        build(**settings)
