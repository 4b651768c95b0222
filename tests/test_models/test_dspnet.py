# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import math
import uuid
import weakref

import numpy as np
import pytest
import torch
from conftest import model_cfg
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmselfsup.models.algorithms import BYOL
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample
from torch import nn

from dspnet_mm import InputError
from dspnet_mm.models import activate
from dspnet_mm.models.algorithms.base import group_penalty, spread


def build(**kwargs):
    torch.manual_seed(0)
    return MODELS.build(model_cfg(**kwargs))


def batch(number=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return dict(
        inputs=[
            torch.rand(number, 3, 16, 16, generator=generator)
            for _ in range(2)
        ],
        data_samples=[SelfSupDataSample() for _ in range(number)])


def sgd(model, lr=0.1, **kwargs):
    return OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), **kwargs)


def byol_twin(model):
    """MMSelfSup's own BYOL with the same weights."""

    def mlp(in_channels, with_avg_pool):
        return dict(
            type='NonLinearNeck',
            in_channels=in_channels,
            hid_channels=16,
            out_channels=8,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=with_avg_pool,
            norm_cfg=dict(type='BN1d'))

    twin = BYOL(
        backbone=dict(
            type='ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            norm_cfg=dict(type='BN')),
        neck=mlp(64, True),
        head=dict(
            type='LatentPredictHead',
            predictor=mlp(8, False),
            loss=dict(type='CosineSimilarityLoss')),
        base_momentum=0.9)
    for name in ('backbone', 'neck', 'head'):
        state = getattr(model, name).state_dict()
        missing, unexpected = getattr(twin, name).load_state_dict(
            state, strict=False)
        assert not unexpected
        assert all('running' in key or 'num_batches' in key for key in missing)
    return twin


def test_with_the_supernet_alone_it_is_mmselfsups_byol():
    MessageHub.get_current_instance().update_info('max_iters', 5)
    cfg = model_cfg(sampler=dict(type='FixedSampler'), base_momentum=0.9)
    cfg['family']['stem'] = 'imagenet'
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    twin = byol_twin(model)
    initial = torch.cat(
        [p.detach().flatten() for p in model.backbone.parameters()])
    ours, theirs = sgd(model, lr=0.01), sgd(twin, lr=0.01)
    for step in range(4):
        data = batch(seed=step)
        data['inputs'] = [
            torch.nn.functional.interpolate(view, scale_factor=3)
            for view in data['inputs']
        ]
        mine = model.train_step(copy.deepcopy(data), ours)
        upstream = twin.train_step(data, theirs)
        assert mine['loss'].item() == pytest.approx(
            upstream['loss'].item(), abs=1e-5), step
    ours, theirs = (
        torch.cat([p.detach().flatten() for p in each.backbone.parameters()])
        for each in (model, twin))
    assert (ours - theirs).norm() <= 1e-3 * (ours - initial).norm()


@pytest.mark.parametrize('name, settings, warns', [
    ('tiny', dict(), True),
    ('tiny', dict(target='tiny'), False),
    ('tiny', dict(target='twin'), False),
    ('tiny', dict(grow_from='tiny'), False),
    ('largest', dict(), False),
])
def test_a_target_that_nothing_trains_is_told(name, settings, warns, caplog):
    MMLogger.get_instance(f'test-{uuid.uuid4()}').addHandler(caplog.handler)
    model = build(sampler=dict(type='FixedSampler', name=name), **settings)
    model.init_weights()
    told = [text for text in caplog.messages if 'is larger than' in text]
    assert len(told) == warns
    assert not warns or "trained, 'tiny' alone" in told[0]


@pytest.mark.parametrize('number', [1, 3])
def test_other_than_two_views_are_refused(number):
    data = batch()
    data['inputs'] = data['inputs'][:1] * number
    model = build()
    with pytest.raises(InputError, match=f'{number} view.*DSPNet compares 2'):
        model.train_step(data, sgd(model))


@pytest.mark.parametrize('follow_each_step', [False, True])
def test_a_step_for_each_subnet_is_a_step_after_the_other(follow_each_step):
    data = batch()
    models = [
        build(
            sampler=dict(type='AllDesiredSampler'),
            step_each_subnet=each,
            follow_each_step=follow_each_step,
            base_momentum=0.9) for each in (True, False)
    ]
    ours, theirs = models
    wrappers = [sgd(model) for model in models]
    ours.train_step(data, wrappers[0])
    # By hand: the same targets for all, and the gradients of one at a time.
    views, _ = theirs.data_preprocessor(data, True)
    targets = theirs.compute_targets(views)
    for subnet in theirs.family.desired.values():
        with activate(subnet, *theirs.slimmable_networks):
            wrappers[1].optimizer.zero_grad()
            theirs.subnet_loss(views, targets)[0].backward()
            wrappers[1].optimizer.step()
        if follow_each_step:
            theirs.update_target()
    if not follow_each_step:
        theirs.update_target()
    for (name, one), other in zip(ours.named_parameters(),
                                  theirs.parameters()):
        assert torch.allclose(one, other, atol=1e-7), name
    with pytest.raises(InputError, match='accumulative_counts=1'):
        ours.train_step(data, sgd(ours, accumulative_counts=2))


@pytest.mark.parametrize('iteration, slope', [(0, 0.), (5, 0.05)])
def test_decay_falls_with_the_group_of_channels(iteration, slope):
    """From the start of the training to its half, more and more."""
    info = MessageHub.get_current_instance()
    info.update_info('max_iters', 10)
    info.update_info('iter', iteration)
    data = batch()
    shared = dict(
        sampler=dict(type='AllDesiredSampler'), step_each_subnet=False)
    models = [
        build(**shared),
        build(**shared, group_decay=0.5),
        build(**shared)
    ]
    wrappers = [sgd(model, lr=0.1) for model in models]
    # Without momentum, the first step of weight decay is -lr * decay * w.
    for group in wrappers[2].optimizer.param_groups:
        group['weight_decay'] = 0.5
    before = models[0].backbone.layer4[0].conv1.weight.detach().clone()
    for model, wrapper in zip(models, wrappers):
        model.train_step(copy.deepcopy(data), wrapper)
    none, grouped, usual = (
        model.backbone.layer4[0].conv1.weight for model in models)
    of_channel = ((grouped - none) / (usual - none)).detach()
    for channel in range(len(before)):
        # Eight groups of eight channels.
        expected = 1 - slope * (channel // 8)
        found = of_channel[channel].median()
        assert found == pytest.approx(expected, rel=1e-3)
    with pytest.raises(InputError, match='switchable_bn=False'):
        build(**shared, group_decay=0.5, switchable_bn=True)
    with pytest.raises(InputError, match=r'group_slope=0.2.*\[0, 1/7\]'):
        build(**shared, group_decay=0.5, group_slope=0.2)


@pytest.mark.parametrize('progress, slope', [(0., 0.), (0.25, 0.025),
                                             (0.5, 0.05), (1., 0.05)])
def test_groups_decay_apart_over_the_first_half(progress, slope):
    conv = torch.ones(16, 2, 3, 3, requires_grad=True)
    linear = torch.ones(16, 4, requires_grad=True)
    still = torch.ones(16)
    group_penalty([conv, linear, still], progress, 0.05).backward()
    for channel in range(16):
        expected = 1 - slope * (channel // 2)
        assert torch.allclose(conv.grad[channel], torch.tensor(expected))
    assert torch.allclose(linear.grad, torch.ones(()))


def test_weights_do_not_decay_twice():
    model = build(group_decay=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.raises(InputError, match='optimizer.weight_decay=0'):
        model.train_step(batch(), OptimWrapper(optimizer))


def test_each_step_decays():
    data = batch()
    moved = []
    for decay in (0., 0.5):
        # Of a loss of no weight, decay is all that is left.
        model = build(
            sampler=dict(type='AllDesiredSampler'),
            loss_weights=dict.fromkeys(('large', 'middle', 'tiny'), 0.),
            step_each_subnet=True,
            group_decay=decay)
        before = model.backbone.conv1.weight.detach().clone()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = model.train_step(copy.deepcopy(data), OptimWrapper(optimizer))
        # Decay is none of the losses, nor of their logged sum.
        assert losses['loss'] == 0
        moved.append((model.backbone.conv1.weight / before).detach())
    assert torch.allclose(moved[0], torch.ones(()))
    steps = len(model.family.desired)
    assert torch.allclose(moved[1], torch.tensor((1 - 0.1 * 0.5)**steps))


def losses_of(model, views):
    """The loss of each desired network, without a step."""
    with torch.no_grad():
        targets = model.compute_targets(views)
        losses = {}
        for name, subnet in model.family.desired.items():
            with activate(subnet, *model.slimmable_networks):
                losses[name] = model.subnet_loss(views, targets)[0].item()
    return losses


def test_the_target_may_be_the_same_subnet():
    views = batch()['inputs']
    models = [build(target=target) for target in ('largest', 'twin')]
    usual, same = (losses_of(model, views) for model in models)
    assert same['large'] == usual['large'] and same['tiny'] != usual['tiny']
    # At the start, online and target network are alike.
    model = models[1]
    with torch.no_grad(), \
            activate(model.family['tiny'], *model.slimmable_networks):
        first, second = (model.neck(model.backbone(view))[0] for view in views)
        expected = 2 * (model.head(first, second) + model.head(second, first))
    assert same['tiny'] == pytest.approx(expected.item(), rel=1e-5)
    assert model.target_net[0].active_subnet == model.family.full


def test_the_target_may_be_a_desired_network_until_a_part_is_done():
    info = MessageHub.get_current_instance()
    info.update_info('max_iters', 10)
    views = batch()['inputs']
    model = build(target=[
        dict(subnet='tiny', until=0.5),
        dict(subnet='largest', until=1)
    ])
    with torch.no_grad():
        usual = build().compute_targets(views)
        # At the start, online and target network are alike.
        with activate(model.family['tiny'], *model.slimmable_networks):
            tiny = [model.neck(model.backbone(view))[0] for view in views]
        for iteration, expected in ((4, tiny), (5, usual)):
            info.update_info('iter', iteration)
            for ours, theirs in zip(model.compute_targets(views), expected):
                torch.testing.assert_close(ours, theirs)
    assert model.target_net[0].active_subnet == model.family.full


@pytest.mark.parametrize('target', [
    'smallest',
    [dict(subnet='largest', until=0.5),
     dict(subnet='smallest', until=1)],
])
def test_a_target_without_batch_norms_of_its_own_is_refused(target):
    """At once, not when its phase begins."""
    shared = dict(
        target=target,
        switchable_bn=True,
        sampler=dict(type='AllDesiredSampler'))
    # Here 'tiny' is the smallest.
    build(**shared)
    family = dict(model_cfg()['family'], min_widths=0.125)
    with pytest.raises(
            InputError, match="'smallest'.*'largest', 'shallowest', 'twin'"):
        build(family=family, **shared)


def test_small_subnets_may_predict_what_the_supernet_predicts():
    views = batch()['inputs']
    models = [build(distillation=which) for which in ('none', 'online')]
    usual, online = (losses_of(model, views) for model in models)
    assert online['large'] == usual['large']
    model, predictions = models[1], {}
    for name in ('large', 'tiny'):
        with torch.no_grad(), \
                activate(model.family[name], *model.slimmable_networks):
            predictions[name] = torch.cat([
                model.head.predictor(model.neck(model.backbone(view)))[0]
                for view in views
            ])
    similarity = torch.cosine_similarity(*predictions.values())
    expected = (usual['tiny'] - 4 * similarity.mean().item()) / 2
    assert online['tiny'] == pytest.approx(expected, rel=1e-4)
    subnets = [model.family['tiny'], model.family['large']]
    model.sampler = lambda *args: subnets
    with pytest.raises(InputError, match='draws it first'):
        model.train_step(batch(), sgd(model))
    # Before a growing supernet is grown, there is nothing to distill from.
    del subnets[1]
    alone = model.train_step(batch(), sgd(model))
    assert alone['loss_tiny'].item() == pytest.approx(usual['tiny'], rel=1e-4)


def test_small_subnets_may_have_a_predictor_of_their_own():
    model, data = build(distillation='second_predictor'), batch()
    before = copy.deepcopy(model.distiller.state_dict())
    tiny = model.family['tiny']
    model.sampler = lambda *args: [tiny]
    predictor = copy.deepcopy(model.head.predictor.state_dict())
    wrapper = sgd(model)
    losses = [model.train_step(data, wrapper)['loss'] for _ in range(20)]
    assert losses[-1] < losses[0] - 0.5
    for key, value in model.head.predictor.state_dict().items():
        assert torch.equal(value, predictor[key]), key
    assert any(not torch.equal(value, before[key])
               for key, value in model.distiller.state_dict().items())
    assert model.distiller.active_subnet == model.family.full


@pytest.mark.parametrize('name', ['large', 'middle', 'tiny'])
def test_us3ls_loss_is_the_formula_by_numpy(name):
    torch.manual_seed(0)
    model, views = build(
        type='US3L', distillation='second_predictor'), batch()['inputs']
    for parameter in model.distiller.parameters():
        # Both predictors begin as one.
        nn.init.normal_(parameter)
    targets = model.compute_targets(views)
    predictor = model.head.predictor if name == 'large' else model.distiller
    with activate(model.family[name], *model.slimmable_networks):
        loss, _ = model.subnet_loss(views, targets)
        predictions = [
            predictor([model.neck(model.backbone(view))[0]])[0].detach()
            for view in views
        ]
    expected = 0.
    for prediction, target in zip(predictions, targets[::-1]):
        p, z = prediction.numpy(), target.numpy()
        cosines = (p * z).sum(1) / np.linalg.norm(
            p, axis=1) / np.linalg.norm(
                z, axis=1)
        expected -= 2 * cosines.mean()
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_unknown_ways_to_learn_are_refused():
    with pytest.raises(
            InputError, match="'none', 'online', 'second_predictor'"):
        build(distillation='both')
    with pytest.raises(InputError, match='phases dict'):
        build(target=['tiny'])
    for target in ('full', [dict(subnet='huge', until=1)]):
        with pytest.raises(InputError, match="'twin', 'large', .*'tiny'"):
            build(target=target)
    with pytest.raises(InputError, match='the last one 1'):
        build(target=[dict(subnet='tiny', until=0.5)])
    for wrong in (-0.1, 1):
        with pytest.raises(InputError, match=f'predictor_warmup={wrong}'):
            build(predictor_warmup=wrong)


@pytest.mark.parametrize('average_gradients', [False, True])
def test_the_predictor_may_learn_before_the_rest(average_gradients):
    MessageHub.get_current_instance().update_info('max_iters', 4)
    model = build(
        predictor_warmup=0.5,
        base_momentum=0.5,
        average_gradients=average_gradients)
    wrapper = sgd(model)
    before = copy.deepcopy(model.state_dict())

    def changed():
        return {
            name.split('.')[0]
            for name, value in model.state_dict().items()
            if not torch.equal(before[name], value)
        }

    for expected in ({'head'}, {'head'},
                     {'head', 'backbone', 'neck', 'target_net'}):
        model.train_step(batch(), wrapper)
        assert changed() == expected
    assert all(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize('depth, change', [
    (18, {}),
    (50, {}),
    (18, dict(switchable_bn=True, sampler=dict(type='AllDesiredSampler'))),
])
def test_what_holds_the_one_grown_from_begins_as_it(depth, change):
    family = dict(model_cfg()['family'], depth=depth)
    model = build(family=family, grow_from='shallowest', **change)
    model.init_weights()
    views = batch()['inputs']
    family = model.family

    def outputs(networks, subnet):
        with torch.no_grad(), activate(subnet, *networks):
            features = networks[0](views[0])
            return features[0], networks[1](features)[0]

    holding = [family.full]
    if not change:
        holding.append(family.subnet([0.75, 0.75, 1, 0.5], [2, 1, 2, 1]))
    online = model.backbone, model.neck
    for networks in (online, model.target_net):
        features, projections = outputs(networks, family['middle'])
        for subnet in holding:
            larger, same = outputs(networks, subnet)
            torch.testing.assert_close(larger[:, :features.shape[1]], features)
            torch.testing.assert_close(same, projections)
        # 'tiny' does not hold it, and begins at random.
        assert not torch.allclose(
            outputs(networks, family['tiny'])[1], projections, atol=1e-2)
    # Nothing is cut off for good: all that is zero learns.
    with activate(family.full, *model.slimmable_networks):
        model.subnet_loss(views, model.compute_targets(views))[0].backward()
    cut = [
        parameter for parameter in model.backbone.parameters()
        if parameter.dim() == 4 and (parameter == 0).any()
    ]
    assert cut
    for parameter in cut:
        assert (parameter.grad[parameter == 0] != 0).float().mean() > 0.5


def test_a_network_to_grow_from_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="'huge': the family has large"):
        build(grow_from='huge')


def test_a_slow_start_trains_the_supernet_alone():
    MessageHub.get_current_instance().update_info('max_iters', 4)
    model = build(
        sampler=dict(
            type='PhasedSampler',
            phases=[
                dict(type='FixedSampler', until=0.5),
                dict(type='AllDesiredSampler', until=1)
            ]))
    wrapper = sgd(model)
    trained = [[
        name for name in model.train_step(batch(), wrapper)
        if name.startswith('loss_')
    ] for _ in range(4)]
    everything = ['loss_large', 'loss_middle', 'loss_tiny']
    assert trained == [['loss_large']] * 2 + [everything] * 2


def test_losses_of_those_without_a_name_add_up():
    model = build(
        sampler=dict(type='SandwichSampler', num_random=3, desired_prob=0.))
    losses = model.loss(batch()['inputs'], [])
    assert 'loss_random' in losses and len(losses) < 5
    logged = model.train_step(batch(), sgd(model))
    assert sum(losses.values()).item() == pytest.approx(
        logged['loss'].item(), rel=1e-5)


def test_gradients_are_the_sum_over_the_sampled_subnetworks():
    model = build()
    data = batch()
    wrapper = sgd(model, lr=0.0)
    summed = model.loss(data['inputs'], [])
    assert set(summed) <= {'loss_large', 'loss_middle', 'loss_tiny'}
    assert len(summed) == 3
    sum(summed.values()).backward()
    expected = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    grads = {}
    wrapper.step = lambda: grads.update({
        n: p.grad.clone()
        for n, p in model.named_parameters() if p.grad is not None
    })
    logged = model.train_step(data, wrapper)
    assert logged['loss'].item() == pytest.approx(
        sum(value.item() for value in summed.values()), rel=1e-5)
    for name, grad in grads.items():
        assert torch.allclose(grad, expected[name], atol=1e-6), name


@pytest.mark.parametrize('loss_weights, factors', [
    ('sum', (1, 1, 1)),
    ('mean', (1 / 3, 1 / 3, 1 / 3)),
    (dict(large=2.0, tiny=0.5), (2, 1, 0.5)),
])
def test_loss_weights(loss_weights, factors):
    model = build(
        loss_weights=loss_weights, sampler=dict(type='AllDesiredSampler'))
    logged = model.train_step(batch(), sgd(model))
    total = sum(factor * logged[f'loss_{name}']
                for factor, name in zip(factors, ('large', 'middle', 'tiny')))
    assert logged['loss'].item() == pytest.approx(total.item(), rel=1e-5)


class Saved:

    def __init__(self, tensor):
        self.tensor = tensor


def test_no_graph_is_left_when_the_next_subnetwork_begins():
    """So memory does not grow with the number of sub-networks."""
    model = build(sampler=dict(type='AllDesiredSampler'))
    alive, counts = weakref.WeakSet(), []

    def save(tensor):
        saved = Saved(tensor)
        alive.add(saved)
        return saved

    model.backbone.register_forward_pre_hook(
        lambda *_: counts.append(len(alive)))
    with torch.autograd.graph.saved_tensors_hooks(save,
                                                  lambda saved: saved.tensor):
        model.train_step(batch(), sgd(model))
    first_views, second_views = counts[::2], counts[1::2]
    assert first_views == [0, 0, 0]
    assert min(second_views) > 0


def test_losses_and_spreads_are_logged_for_each_subnetwork():
    model = build(
        sampler=dict(type='SandwichSampler', num_random=2, desired_prob=0.0))
    logged = model.train_step(batch(), sgd(model))
    assert set(logged) == {
        'loss', 'loss_large', 'spread_large', 'loss_tiny', 'spread_tiny',
        'loss_random', 'spread_random'
    }
    assert -4 <= logged['loss_tiny'] <= 4
    assert 0 <= logged['spread_tiny'] <= 1.1


def test_spread_tells_collapse_from_an_even_spread():
    torch.manual_seed(0)
    even = torch.randn(4096, 32)
    assert spread(even).item() == pytest.approx(1, abs=0.02)
    assert spread(even + 100).item() < 0.02
    assert spread(torch.ones(16, 32)).item() == 0
    assert spread(3 * even).item() == pytest.approx(spread(even).item())


@pytest.mark.parametrize('count', [1, 3])
def test_accumulated_gradients_are_those_of_one_step(count):
    """BN aside: the micro-batches are equal, so their statistics are."""
    data = batch()
    grads = []
    for accumulative_counts in (1, count):
        model = build(sampler=dict(type='AllDesiredSampler'))
        wrapper = sgd(model, accumulative_counts=accumulative_counts)
        steps = []
        step = wrapper.step
        wrapper.step = lambda: (steps.append({
            n: p.grad.clone()
            for n, p in model.named_parameters() if p.grad is not None
        }), step())
        set_apart(model)
        target = copy.deepcopy(model.target_net.state_dict())
        for micro in range(accumulative_counts):
            assert not steps
            # It follows steps alone.
            assert all(
                torch.equal(target[key], value)
                for key, value in model.target_net.state_dict().items())
            model.train_step(copy.deepcopy(data), wrapper)
        assert len(steps) == 1
        assert wrapper.inner_count == accumulative_counts
        grads.append(torch.cat([g.flatten() for g in steps[0].values()]))
    # As one vector, since some biases have a gradient of nothing but noise.
    assert (grads[0] - grads[1]).norm() <= 1e-5 * grads[0].norm()


def gradient_of_a_step(wrapper_type=OptimWrapper, steps=1, **kwargs):
    """As one vector, since some biases have a gradient of noise alone."""
    kwargs.setdefault('sampler', dict(type='AllDesiredSampler'))
    model = build(**kwargs)
    wrapper = wrapper_type(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        accumulative_counts=steps)
    grads = []

    def keep():
        for p in model.parameters():
            grad = torch.zeros_like(p) if p.grad is None else p.grad
            grads.append(grad.flatten().clone())

    wrapper.zero_grad = keep
    for _ in range(steps):
        model.train_step(batch(), wrapper)
    return torch.cat(grads)


def gradients_by_hand(model, weights):
    """The averages over those sub-networks whose plain network has a weight.

    As :func:`gradient_of_a_step`.
    """
    views = batch()['inputs']
    networks = dict(backbone=model.backbone, neck=model.neck)
    networks['head.predictor'] = model.head.predictor
    if model.distillation == 'second_predictor':
        networks['distiller'] = model.distiller
    parameters = dict(model.named_parameters())
    sums, divisors = ({
        name: torch.zeros_like(value)
        for name, value in parameters.items()
    } for _ in range(2))
    for number, (label, subnet) in enumerate(model.family.desired.items()):
        model.zero_grad()
        with activate(subnet, *networks.values()):
            loss, _ = model.subnet_loss(views, model.compute_targets(views))
            loss.backward()
            plain = {
                f'{prefix}.{key}': value
                for prefix, network in networks.items()
                for key, value in network.plain_state().items()
            }
        for plain_name, value in plain.items():
            # Its own, where parameters are private.
            name = f'{plain_name}.{number}'
            name = name if name in parameters else plain_name
            if name not in parameters or parameters[name].grad is None:
                continue
            there = tuple(map(slice, value.shape))
            sums[name] += weights[label] * parameters[name].grad
            divisors[name][there] += weights[label]
    return torch.cat([(sums[name] / divisors[name].clamp(min=1e-9)).flatten()
                      for name in sums])


@pytest.mark.parametrize('steps', [1, 2])
@pytest.mark.parametrize('change', [
    dict(),
    dict(loss_weights=dict(large=2., middle=1., tiny=0.5)),
    dict(switchable_bn=True),
    dict(distillation='second_predictor'),
])
def test_gradients_may_be_averages(change, steps):
    model = build(**change, sampler=dict(type='AllDesiredSampler'))
    weights = change.get('loss_weights', dict(large=1., middle=1., tiny=1.))
    expected = gradients_by_hand(model, weights)
    found = gradient_of_a_step(steps=steps, average_gradients=True, **change)
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    usual = gradient_of_a_step(steps=steps, **change)
    assert (found - usual).norm() > 0.1 * expected.norm()


def test_averages_begin_anew_with_each_step():
    model = build(
        sampler=dict(type='AllDesiredSampler'), average_gradients=True)
    wrapper = sgd(model, lr=0.)
    grads, zero_grad = [], wrapper.zero_grad

    def keep():
        grads.append(
            torch.cat([
                p.grad.flatten() for p in model.parameters()
                if p.grad is not None
            ]))
        zero_grad()

    wrapper.zero_grad = keep
    for _ in range(2):
        model.train_step(batch(), wrapper)
    assert torch.allclose(*grads)


def test_averages_are_of_the_subnets_that_were_sampled():
    alone = dict(sampler=dict(type='FixedSampler'))
    assert torch.equal(
        gradient_of_a_step(average_gradients=True, **alone),
        gradient_of_a_step(**alone))


def test_channels_last_gives_the_same_gradients():
    plain, channels_last = (
        gradient_of_a_step(channels_last=value) for value in (False, True))
    assert (plain - channels_last).norm() <= 1e-4 * plain.norm()
    model = build(channels_last=True)
    for network in (model.backbone, model.target_net[0]):
        assert network.layer1[0].conv2.weight.is_contiguous(
            memory_format=torch.channels_last)


def test_bfloat16_gives_the_gradients_of_mmselfsups_byol():
    """Against single precision both are off by half: by the same half."""
    MessageHub.get_current_instance().update_info('max_iters', 5)
    cfg = model_cfg(sampler=dict(type='FixedSampler'), base_momentum=0.9)
    cfg['family']['stem'] = 'imagenet'
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    data = batch()
    data['inputs'] = [
        torch.nn.functional.interpolate(view, scale_factor=3)
        for view in data['inputs']
    ]
    grads = []
    for algorithm in (byol_twin(model), model):
        wrapper = AmpOptimWrapper(
            optimizer=torch.optim.SGD(algorithm.parameters(), lr=0.1))
        wrapper.zero_grad = lambda: grads.append(
            torch.cat([
                p.grad.flatten()
                for network in (algorithm.backbone, algorithm.neck)
                for p in network.parameters()
            ]))
        algorithm.train_step(copy.deepcopy(data), wrapper)
    assert (grads[0] - grads[1]).norm() <= 0.02 * grads[0].norm()


def test_bfloat16_adds_up_over_subnetworks_and_accumulated_batches():
    wrapper_type, names = AmpOptimWrapper, ('large', 'middle', 'tiny')
    alone = [
        gradient_of_a_step(
            wrapper_type,
            loss_weights={each: float(each == name)
                          for each in names}) for name in names
    ]
    for steps in (1, 2):
        together = gradient_of_a_step(wrapper_type, steps)
        assert (sum(alone) - together).norm() <= 1e-3 * together.norm()


class Scaler:
    """What PyTorch before 2.3 has for GPUs alone."""

    def __init__(self, init_scale, growth_interval=2000):
        self._scale = init_scale
        self._growth = 2 if growth_interval == 1 else 1
        self._overflowed = None

    def is_enabled(self):
        return True

    def get_scale(self):
        return self._scale

    def scale(self, loss):
        return loss * self._scale

    def step(self, optimizer):
        grads = [
            p.grad for group in optimizer.param_groups for p in group['params']
            if p.grad is not None
        ]
        self._overflowed = False
        for grad in grads:
            grad /= self._scale
            self._overflowed |= not grad.isfinite().all()
        if not self._overflowed:
            optimizer.step()

    def update(self, new_scale=None):
        factor = 0.5 if self._overflowed else self._growth
        self._scale = new_scale or factor * self._scale


def scaler(init_scale, **kwargs):
    """PyTorch's own, where there is one for CPUs."""
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler('cpu', init_scale=init_scale, **kwargs)
    return Scaler(init_scale, **kwargs)


@pytest.mark.smoke
def test_a_scaler_steps_once_for_all_subnetworks():
    moved = []
    for scaled in (False, True):
        model = build(sampler=dict(type='AllDesiredSampler'))
        wrapper = AmpOptimWrapper(
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            accumulative_counts=2)
        if scaled:
            wrapper.loss_scaler = scaler(1024., growth_interval=1)
        before = torch.cat([p.flatten() for p in model.backbone.parameters()])
        for _ in range(2):
            assert not scaled or wrapper.loss_scaler.get_scale() == 1024
            model.train_step(batch(), wrapper)
        moved.append(
            torch.cat([p.flatten()
                       for p in model.backbone.parameters()]) - before)
    assert wrapper.loss_scaler.get_scale() == 2048
    assert (moved[0] - moved[1]).norm() <= 1e-3 * moved[0].norm()


@pytest.mark.smoke
def test_gradients_that_a_scaler_skips_are_told_and_counted(caplog):
    # While the scaler finds its scale, not even 'stop' stops.
    model = build(on_nonfinite='stop')
    wrapper = AmpOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    wrapper.loss_scaler = scaler(1024.)
    model.backbone.conv1.weight.register_hook(lambda grad: grad * float('inf'))
    before = copy.deepcopy(model.state_dict())
    MMLogger.get_instance(f'test-{uuid.uuid4()}').addHandler(caplog.handler)
    for _ in range(19):
        model.train_step(batch(), wrapper)
        assert model.only_scale_overflowed
    told = [text for text in caplog.messages if 'gradient' in text]
    assert 'The gradient, scaled by 1024, is not finite' in told[0]
    assert all(
        torch.equal(before[key], value)
        for key, value in model.state_dict().items())
    with pytest.raises(
            FloatingPointError, match='iteration 20 of such in a row'):
        model.train_step(batch(), wrapper)


@pytest.mark.smoke
@pytest.mark.parametrize('ruined, harmless', [(None, True), ('tiny', False),
                                              ('large', False)])
def test_what_a_scaler_skips_is_told_from_the_rest(ruined, harmless):
    """Of the steps of an iteration, one for each sub-network."""
    model = build(
        sampler=dict(type='AllDesiredSampler'), step_each_subnet=True)
    wrapper = AmpOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    wrapper.loss_scaler = scaler(1024.)
    poison(model, ruined)
    overflowing = 'middle' if ruined == 'large' else 'large'

    def overflow(grad):
        active = model.family.label_of(model.backbone.active_subnet)
        return grad * float('inf' if active == overflowing else 1)

    model.backbone.conv1.weight.register_hook(overflow)
    model.train_step(batch(), wrapper)
    assert model.skipped_in_a_row == 1
    assert model.only_scale_overflowed == harmless


@pytest.mark.smoke
def test_gradients_that_a_fixed_scale_cannot_mend_stop():
    model = build(on_nonfinite='stop')
    wrapper = AmpOptimWrapper(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    # As AmpOptimWrapper does for loss_scale=512.
    wrapper.loss_scaler = scaler(512.)
    wrapper._scale_update_param = 512.
    model.backbone.conv1.weight.register_hook(lambda grad: grad * float('inf'))
    with pytest.raises(FloatingPointError, match='scaled by 512, is not'):
        model.train_step(batch(), wrapper)
    assert not model.only_scale_overflowed


def poison(model, label):
    """Make the loss of one sub-network not a number."""
    subnet_loss = model.subnet_loss

    def poisoned(views, targets):
        loss, projections = subnet_loss(views, targets)
        active = model.family.label_of(model.backbone.active_subnet)
        return loss * (float('nan') if active == label else 1), projections

    model.subnet_loss = poisoned


def set_apart(model):
    """Let the target network be another: else it has nothing to follow."""
    for parameter in model.target_net.parameters():
        parameter.data.add_(0.1)


@pytest.mark.parametrize('steps', [1, 2])
def test_a_loss_that_is_not_finite_skips_the_step(steps, caplog):
    model = build(sampler=dict(type='AllDesiredSampler'))
    wrapper = sgd(model, lr=0.125, accumulative_counts=steps)
    set_apart(model)
    before = copy.deepcopy(model.state_dict())
    poison(model, 'tiny')
    MMLogger.get_instance(f'test-{uuid.uuid4()}').addHandler(caplog.handler)
    for micro in range(steps):
        model.train_step(batch(), wrapper)
        if micro == 0:
            # Also if only one of the accumulated batches is to blame.
            del model.subnet_loss
    message = caplog.messages[-1]
    assert 'The loss of sub-network tiny is not finite' in message
    assert f'iteration {steps}, learning rate 0.125' in message
    assert all(
        torch.equal(before[key], value)
        for key, value in model.state_dict().items())
    for _ in range(steps):
        assert torch.isfinite(model.train_step(batch(), wrapper)['loss'])
    assert not torch.equal(before['backbone.conv1.weight'],
                           model.backbone.conv1.weight)


def test_a_gradient_that_is_not_finite_skips_the_step(caplog):
    model = build()
    wrapper = sgd(model)
    weight = model.backbone.conv1.weight
    before = weight.clone()
    weight.register_hook(lambda grad: grad * float('inf'))
    MMLogger.get_instance(f'test-{uuid.uuid4()}').addHandler(caplog.handler)
    model.train_step(batch(), wrapper)
    assert 'The gradient is not finite' in caplog.messages[-1]
    assert torch.equal(before, weight)


def test_a_gradient_whose_squares_overflow_is_finite():
    model = build()
    before = model.backbone.conv1.weight.detach().clone()
    model.backbone.conv1.weight.register_hook(lambda grad: grad * 1e25)
    model.train_step(batch(), sgd(model, lr=1e-24))
    assert model.skipped_in_a_row == 0
    assert not torch.equal(model.backbone.conv1.weight, before)


def test_losses_that_stay_not_finite_stop_the_run():
    for on_nonfinite, steps in (('stop', 1), ('skip', 20)):
        model = build(on_nonfinite=on_nonfinite)
        poison(model, 'large')
        wrapper = sgd(model)
        for _ in range(steps - 1):
            model.train_step(batch(), wrapper)
        with pytest.raises(FloatingPointError, match='large is not finite'):
            model.train_step(batch(), wrapper)


def test_what_ruins_one_subnet_alone_stops_the_run_too():
    """Though the others' own steps are made."""
    model = build(
        sampler=dict(type='AllDesiredSampler'), step_each_subnet=True)
    poison(model, 'large')
    wrapper = sgd(model)
    for number in range(1, 20):
        model.train_step(batch(), wrapper)
        assert model.skipped_in_a_row == number
    with pytest.raises(
            FloatingPointError, match='iteration 20 of such in a row'):
        model.train_step(batch(), wrapper)
    del model.subnet_loss
    model.train_step(batch(), wrapper)
    assert model.skipped_in_a_row == 0


def test_the_target_is_the_average_and_gets_no_gradient():
    model = build(base_momentum=0.75)
    before = [p.clone() for p in model.target_net.parameters()]
    model.train_step(batch(), sgd(model))
    online = [*model.backbone.parameters(), *model.neck.parameters()]
    for old, new, source in zip(before, model.target_net.parameters(), online):
        assert not new.requires_grad and new.grad is None
        assert torch.allclose(new, 0.75 * old + 0.25 * source, atol=1e-6)


def test_the_momentum_rises_along_a_cosine():
    model = build(base_momentum=0.9)
    hub = MessageHub.get_current_instance()
    assert model.momentum == 0.9
    hub.update_info('max_iters', 10)
    seen = []
    for iteration in range(10):
        hub.update_info('iter', iteration)
        seen.append(model.momentum)
    assert seen == pytest.approx(
        [1 - 0.1 * (math.cos(math.pi * k / 10) + 1) / 2 for k in range(1, 11)])
    assert seen[-1] == 1


def test_the_target_runs_once_per_iteration():
    model = build(sampler=dict(type='AllDesiredSampler'))
    calls = []
    model.target_net.register_forward_hook(lambda *_: calls.append(1))
    model.train_step(batch(), sgd(model))
    assert len(calls) == 2  # Once for each view.


def test_initialisation_keeps_both_networks_equal():
    model = build()
    model.init_weights()
    online = [*model.backbone.parameters(), *model.neck.parameters()]
    for pair in zip(model.target_net.parameters(), online):
        assert torch.equal(*pair)


@pytest.mark.parametrize('where', ['forward', 'backward'])
def test_an_exception_in_a_step_restores_the_supernet(where):
    model = build()

    def fail(*args):
        raise ZeroDivisionError

    wrapper = sgd(model)
    if where == 'forward':
        model.head.predictor.register_forward_hook(fail)
    else:
        wrapper.backward = fail
    with pytest.raises(ZeroDivisionError) as error:
        model.train_step(batch(), wrapper)
    # The traceback still holds what was running.
    assert error.traceback
    for network in model.slimmable_networks:
        assert network.active_subnet == model.family.full


def test_twenty_steps_lower_the_loss():
    model = build(sampler=dict(type='AllDesiredSampler'))
    wrapper = sgd(model, lr=0.05)
    losses = [
        model.train_step(batch(32), wrapper)['loss'].item() for _ in range(20)
    ]
    assert losses[-1] < losses[0] - 1


def test_switchable_batch_norm_trains_private_parameters():
    model = build(
        switchable_bn=True,
        sampler=dict(type='FixedSampler', name='tiny'),
        target='tiny')
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    for _ in range(2):
        model.train_step(batch(), wrapper)
    weight = model.backbone.bn1.weight
    assert not torch.equal(weight[2][:2], torch.ones(2))
    # Nor do others decay while they wait for their turn.
    assert torch.equal(weight[0], torch.ones(8))
    assert model.head.predictor.bn0.num_private == 3


@pytest.mark.parametrize('change, complaint', [
    (dict(loss_weights='max'), "'sum', 'mean',.* or a dict"),
    (dict(momentum_schedule='linear'), "'cosine' or 'constant'"),
    (dict(loss_weights=dict(huge=2.0)), "'huge'.*'large'"),
    (dict(loss_weights=dict(largest=2.0)), "'largest'.*call it 'large'"),
    (dict(loss_weights=dict(tiny=-1.0)), "'tiny' a number from 0 on"),
    (dict(loss_weights=dict(tiny=float('nan'))), 'a number from 0 on'),
    (dict(loss_weights=[1, 2]), 'a dict of weights'),
    (dict(base_momentum=1.5), r'in \[0, 1\]'),
    (dict(on_nonfinite='ignore'), "'skip' or 'stop'"),
    (dict(average_gradients=True,
          step_each_subnet=True), 'not go with step_each_subnet=True'),
    (dict(average_gradients=True,
          group_decay=1e-4), 'not go with group_decay=0.0001'),
    (dict(switchable_bn=True,
          sampler=dict(type='SandwichSampler')), 'desired_prob=1'),
])
def test_parts_that_do_not_fit_are_refused(change, complaint):
    with pytest.raises(InputError, match=complaint):
        build(**change)


def test_switchable_batch_norm_needs_the_supernet_among_the_desired():
    cfg = model_cfg(switchable_bn=True, sampler=dict(type='AllDesiredSampler'))
    cfg['family']['desired'] = [dict(name='tiny', widths=0.25, depths=1)]
    with pytest.raises(InputError, match='supernet among the desired'):
        MODELS.build(cfg)
