# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy

import numpy as np
import pytest
import torch
from conftest import model_cfg
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample

from dspnet_mm import InputError
from dspnet_mm.models import activate
from dspnet_mm.models.algorithms.slimclr import distillation_loss

CONTRASTIVE = dict(
    type='ContrastiveHead',
    loss=dict(type='mmcls.CrossEntropyLoss'),
    temperature=0.2)
PREDICTOR = dict(
    in_channels=8,
    hid_channels=16,
    out_channels=8,
    num_layers=2,
    with_bias=True,
    with_last_bn=False,
    with_avg_pool=False)


def mocov3_head(predictor):
    return dict(
        type='MoCoV3Head',
        predictor=predictor,
        loss=dict(type='mmcls.CrossEntropyLoss', loss_weight=2.),
        temperature=1.)


HEADS = dict(
    SlimCLRMoCoV2=CONTRASTIVE,
    SlimCLRMoCoV3=mocov3_head(
        dict(PREDICTOR, type='SlimmableNonLinearNeck', slim_input=False)),
    SlimCLRSimCLR=CONTRASTIVE)


def build(method, **kwargs):
    if method == 'SlimCLRMoCoV2':
        kwargs.setdefault('queue_size', 16)
    if method != 'SlimCLRSimCLR':
        kwargs.setdefault('base_momentum', 0.9)
    torch.manual_seed(0)
    return MODELS.build(
        model_cfg(type=method, head=copy.deepcopy(HEADS[method]), **kwargs))


def batch(seed=1, number=8, size=16):
    generator = torch.Generator().manual_seed(seed)
    return dict(
        inputs=[
            torch.rand(number, 3, size, size, generator=generator)
            for _ in range(2)
        ],
        data_samples=[SelfSupDataSample() for _ in range(number)])


def sgd(model, lr=0.01):
    return OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9))


def upstream(method, model):
    """MMSelfSup's own algorithm with the same weights."""
    norm_cfg = dict(type='BN1d')
    cfg = dict(
        type=method.replace('SlimCLR', '', 1).replace('MoCoV2', 'MoCo'),
        backbone=dict(
            type='ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            norm_cfg=dict(type='BN')),
        neck=dict(
            PREDICTOR,
            type='NonLinearNeck',
            in_channels=64,
            with_avg_pool=True,
            norm_cfg=norm_cfg),
        head=copy.deepcopy(CONTRASTIVE))
    state = {
        name: getattr(model, name).state_dict()
        for name in ('backbone', 'neck', 'head')
    }
    if method == 'SlimCLRMoCoV2':
        cfg.update(
            neck=dict(
                type='MoCoV2Neck',
                in_channels=64,
                hid_channels=16,
                out_channels=8),
            queue_len=16,
            feat_dim=8,
            momentum=0.9)
        state['neck'] = {
            key.replace('fc0', 'mlp.0').replace('fc1', 'mlp.2'): tensor
            for key, tensor in state['neck'].items()
        }
    elif method == 'SlimCLRMoCoV3':
        cfg.update(
            head=mocov3_head(
                dict(PREDICTOR, type='NonLinearNeck', norm_cfg=norm_cfg)),
            base_momentum=0.9)
    twin = MODELS.build(cfg)
    for name, tensors in state.items():
        found = getattr(twin, name).load_state_dict(tensors, strict=False)
        assert not found.unexpected_keys
        assert all('running' in key or 'num_batches' in key
                   for key in found.missing_keys)
    if method == 'SlimCLRMoCoV2':
        twin.queue = model.queue.features.t().clone()
    # Its average begins with the weights that it had before.
    for name, average in (('SlimCLRMoCoV2', 'encoder_k'),
                          ('SlimCLRMoCoV3', 'momentum_encoder')):
        if method == name:
            getattr(twin, average).module.load_state_dict(
                torch.nn.Sequential(twin.backbone, twin.neck).state_dict())
    return twin


@pytest.mark.parametrize('method', HEADS)
def test_with_the_supernet_alone_it_is_mmselfsups(method):
    MessageHub.get_current_instance().update_info('max_iters', 4)
    cfg = dict(
        sampler=dict(type='FixedSampler'),
        family=dict(model_cfg()['family'], stem='imagenet'))
    if method == 'SlimCLRMoCoV2':
        cfg.update(
            momentum_schedule='constant',
            neck=dict(
                model_cfg()['neck'], with_hidden_bn=False,
                with_last_bias=True))
    # In double precision, since steps make more of any rounding.
    model = build(method, **cfg)
    twin = upstream(method, model)
    for each in (model, twin):
        each.double().data_preprocessor.register_forward_hook(
            lambda _, __, data: ([view.double() for view in data[0]], data[1]))
    initial = torch.cat(
        [p.detach().flatten() for p in model.backbone.parameters()])
    ours, theirs = sgd(model), sgd(twin)
    for step in range(3):
        MessageHub.get_current_instance().update_info('iter', step)
        data = batch(step, size=48)
        mine = model.train_step(copy.deepcopy(data), ours)
        other = twin.train_step(data, theirs)
        assert mine['loss'].item() == pytest.approx(
            other['loss'].item(), abs=1e-6), step
    ours, theirs = (
        torch.cat([p.detach().flatten() for p in each.backbone.parameters()])
        for each in (model, twin))
    assert (ours - theirs).norm() <= 1e-4 * (ours - initial).norm()


def normalized(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def cross_entropy(logits, right):
    logits = logits - logits.max(1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -logs[np.arange(len(logs)), right].mean()


def compared(method, queries, keys, queue):
    """Similarities by numpy, query by query, and which of them is right."""
    queries, keys = ([normalized(each) for each in both]
                     for both in (queries, keys))
    if method == 'SlimCLRMoCoV2':
        rows = [[query @ key, *(query @ other for other in queue)]
                for query, key in zip(queries[0], keys[1])]
        return [np.array(rows)], np.zeros(len(rows), int)
    if method == 'SlimCLRMoCoV3':
        return [queries[0] @ keys[1].T,
                queries[1] @ keys[0].T], np.arange(len(queries[0]))
    views = np.concatenate(queries)
    number = len(views)
    rows, right = [], []
    for index, view in enumerate(views):
        others = [other for other in range(number) if other != index]
        rows.append([view @ views[other] for other in others])
        right.append(others.index((index + number // 2) % number))
    return [np.array(rows)], np.array(right)


@pytest.mark.parametrize('method', HEADS)
@pytest.mark.parametrize('distillation', [True, False])
def test_the_losses_are_the_papers(method, distillation):
    model = build(
        method,
        sampler=dict(type='AllDesiredSampler'),
        distillation=distillation,
        distillation_temperature=3.)
    head, family = model.head, model.family
    views = batch()['inputs']
    losses = model.loss(views, [])
    with torch.no_grad():
        keys = [] if method == 'SlimCLRSimCLR' else [
            model.target_net(view)[0].numpy() for view in views
        ]
        found = {}
        for name, subnet in family.desired.items():
            with activate(subnet, *model.slimmable_networks):
                seen = views
                if method == 'SlimCLRSimCLR':
                    # Its batch norm sees both views at once.
                    seen = [torch.cat(views)]
                queries = [
                    model.neck(model.backbone(view))[0] for view in seen
                ]
                if method == 'SlimCLRMoCoV3':
                    queries = [head.predictor([query])[0] for query in queries]
            if method == 'SlimCLRSimCLR':
                queries = queries[0].chunk(2)
            queries = [query.numpy() for query in queries]
            queue = model.queue.features.numpy() if method == 'SlimCLRMoCoV2' \
                else None
            found[name] = compared(method, queries, keys or queries, queue)
    weight = 2. if method == 'SlimCLRMoCoV3' else 1.
    for name, (similarities, right) in found.items():
        expected = weight * sum(
            cross_entropy(each / head.temperature, right)
            for each in similarities)
        if distillation and name != 'large':
            distilled = 0.
            for mine, whole in zip(similarities, found['large'][0]):
                p, q = (
                    np.exp(each / 3) / np.exp(each / 3).sum(1, keepdims=True)
                    for each in (whole, mine))
                distilled += -(p * np.log(q)).sum(1).mean() * 9
            expected = (expected + distilled) / 2
        assert losses[f'loss_{name}'].item() == pytest.approx(
            expected, rel=1e-4), name


def test_distillation_has_a_least_value_where_both_agree():
    torch.manual_seed(0)
    supernets = torch.rand(4, 6)
    similarities = supernets.clone().requires_grad_()
    distillation_loss(similarities, supernets, 2.).backward()
    assert similarities.grad.abs().max() < 1e-6
    # The size of the gradient does not depend on the temperature, where
    # similarities are close to each other beside it.
    norms = []
    for temperature in (50., 100.):
        other = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
        other.requires_grad_()
        distillation_loss(other, supernets, temperature).backward()
        norms.append(other.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


@pytest.mark.parametrize('each, follow', [(False, False), (True, False),
                                          (True, True)])
def test_the_queue_takes_the_keys_of_each_step(each, follow):
    """Once, also where each sub-network makes a step of its own."""
    model = build(
        'SlimCLRMoCoV2',
        queue_size=20,
        sampler=dict(type='AllDesiredSampler'),
        step_each_subnet=each,
        follow_each_step=follow)
    before = model.queue.features.clone()
    wrapper = sgd(model)
    for step in range(3):
        data = batch(step)
        model.train_step(data, wrapper)
        places = [(8 * step + row) % 20 for row in range(8)]
        expected = torch.nn.functional.normalize(model._keys, dim=1)
        assert torch.equal(model.queue.features[places], expected)
        if step == 0:
            assert torch.equal(model.queue.features[8:], before[8:])
    with pytest.raises(InputError, match='queue_size=4 is less than the 8'):
        small = build('SlimCLRMoCoV2', queue_size=4)
        small.train_step(batch(), sgd(small))


@pytest.mark.parametrize('method', HEADS)
def test_mixed_precision_gives_about_the_same_loss(method):
    losses = []
    for wrapper in (OptimWrapper, AmpOptimWrapper):
        model = build(method, sampler=dict(type='AllDesiredSampler'))
        wrapper = wrapper(
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
        losses.append([
            model.train_step(batch(number=16), wrapper)['loss'].item()
            for _ in range(2)
        ])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_simclr_has_no_target_network():
    model = build('SlimCLRSimCLR')
    model.init_weights()
    assert not any('target' in name for name in model.state_dict())


@pytest.mark.parametrize('option', [
    dict(base_momentum=0.9),
    dict(momentum_schedule='constant'),
    dict(follow_each_step=True)
])
def test_simclr_has_no_options_of_a_target_network(option):
    name, = option
    with pytest.raises(InputError, match=f'no target network for {name}'):
        build('SlimCLRSimCLR', **option)


@pytest.mark.parametrize('method', HEADS)
def test_the_order_of_the_desired_networks_makes_no_difference(method):
    """Behind a slow start, too, the supernet comes first."""
    MessageHub.get_current_instance().update_info('max_iters', 4)
    models, runs = [], []
    for step in (1, -1):
        family = model_cfg()['family']
        family['desired'] = family['desired'][::step]
        model = build(
            method,
            family=family,
            switchable_bn=True,
            sampler=dict(
                type='PhasedSampler',
                phases=[
                    dict(type='FixedSampler', until=0.5),
                    dict(type='AllDesiredSampler', until=1)
                ]))
        wrapper = sgd(model)
        runs.append([{
            name: value.item()
            for name, value in model.train_step(batch(seed), wrapper).items()
        } for seed in range(4)])
        models.append(model)
    for one, other in zip(*runs):
        assert one == pytest.approx(other, rel=1e-3)
    # Batch norms are the family's, in its order.
    for statistic in ('running_mean', 'running_var'):
        ours, theirs = (
            getattr(model.backbone.bn1, statistic) for model in models)
        assert torch.allclose(ours, theirs.flip(0), atol=1e-5)
        assert not torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize('option', [
    dict(distillation_temperature=0),
    dict(distillation='yes'),
    dict(queue_size=0)
])
def test_what_is_out_of_its_range_is_refused(option):
    (name, value), = option.items()
    with pytest.raises(InputError, match=f'{name}={value!r} is not allowed'):
        build('SlimCLRMoCoV2', **option)
