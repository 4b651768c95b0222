# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from dspnet_mm import Subnet
from dspnet_mm.channels import Channels
from dspnet_mm.models import (SlimmableBatchNorm, SlimmableConv2d,
                              SlimmableLinear)

SUBNET = Subnet((0.5, ), (1, ))


def test_layers_are_registered_for_every_toolbox():
    for name in ('SlimmableConv2d', 'SlimmableLinear', 'SlimmableBN'):
        assert MODELS.get(name) is not None


def test_a_convolution_computes_with_its_slice_and_trains_nothing_else():
    torch.manual_seed(0)
    layer = SlimmableConv2d(6, 8, 3, padding=1)
    inputs = torch.rand(2, 4, 5, 5)
    layer.set_active(4, 3)
    output = layer(inputs)
    plain = nn.Conv2d(4, 3, 3, padding=1)
    plain.load_state_dict(layer.plain_state())
    assert torch.equal(output, plain(inputs))
    output.sum().backward()
    assert layer.weight.grad[:3, :4].abs().min() > 0
    assert layer.weight.grad[3:].abs().max() == 0
    assert layer.weight.grad[:, 4:].abs().max() == 0
    assert layer.bias.grad[3:].abs().max() == 0


def test_a_strided_convolution_of_few_channels_survives_channels_last():
    """PyTorch's own ends the process on some CPUs."""
    torch.manual_seed(0)
    layer = SlimmableConv2d(4, 8, 1, stride=2, bias=False)
    inputs = torch.rand(8, 4, 16, 16)
    grads = []
    for form in (torch.contiguous_format, torch.channels_last):
        layer.to(memory_format=form).zero_grad()
        for _ in range(20):
            given = inputs.clone(memory_format=form).requires_grad_()
            output = layer(given)
            output.square().sum().backward()
        grads.append((output, given.grad, layer.weight.grad / 20))
    for one, other in zip(*grads):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_linear_layer_computes_with_its_slice_and_trains_nothing_else():
    layer = SlimmableLinear(6, 8, bias=False)
    layer.set_active(4, 3)
    inputs = torch.rand(2, 4)
    plain = nn.Linear(4, 3, bias=False)
    plain.load_state_dict(layer.plain_state())
    assert torch.equal(layer(inputs), plain(inputs))
    layer(inputs).sum().backward()
    assert layer.weight.grad[:3, :4].abs().min() > 0
    assert layer.weight.grad[3:].abs().max() == 0
    assert layer.weight.grad[:, 4:].abs().max() == 0


def indices(channels):
    return [0, 1, 4] if isinstance(channels, Channels) else [*range(channels)]


def train_both(layer, twin, channels):
    """Add up the gradients of some channels, and of ordinary slices."""
    for active_in, active_out in channels:
        layer.set_active(active_in, active_out)
        into, out = map(indices, (active_in, active_out))
        inputs = torch.rand(3, len(into), 5, 5, dtype=layer.weight.dtype)
        for view in inputs.split([2, 1]):
            output = layer(view)
            expected = nn.functional.conv2d(view, twin.weight[out][:, into],
                                            twin.bias[out])
            assert torch.allclose(output, expected)
            for each in (output, expected):
                each.square().sum().backward()


class Doubled(nn.Module):

    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize('change', [
    lambda layer: layer,
    lambda layer: layer.double(),
    lambda layer: layer.to(memory_format=torch.channels_last),
    lambda layer: register_parametrization(layer, 'weight', Doubled()),
    lambda layer: layer.weight.register_hook(lambda grad: 2 * grad),
])
def test_gradients_add_up_as_those_of_ordinary_slices(change):
    """Over views, sub-networks and accumulated batches."""
    torch.manual_seed(0)
    layer, twin = SlimmableConv2d(6, 8, 3), SlimmableConv2d(6, 8, 3)
    twin.load_state_dict(layer.state_dict())
    for each in (layer, twin):
        change(each)
    train_both(layer, twin, ((4, 3), (6, 8), (6, 5), (4, 3)))
    for ours, theirs in zip(layer.parameters(), twin.parameters()):
        assert torch.allclose(ours.grad, theirs.grad)
        assert ours.grad.stride() == ours.stride()


def test_gradients_of_channels_that_are_not_the_first_add_up():
    torch.manual_seed(0)
    layer, twin = (SlimmableConv2d(6, 8, 3).double() for _ in range(2))
    twin.load_state_dict(layer.state_dict())
    split = Channels(((0, 2), (4, 5)))
    train_both(layer, twin, ((split, 5), (4, split), (6, 8), (split, split)))
    for ours, theirs in zip(layer.parameters(), twin.parameters()):
        assert torch.allclose(ours.grad, theirs.grad)


def test_gradients_may_be_dropped_between_forward_and_backward():
    layer = SlimmableLinear(6, 8)
    layer.set_active(4, 3)
    layer(torch.ones(1, 4)).sum().backward()
    loss = layer(torch.ones(1, 4)).sum()
    layer.zero_grad(set_to_none=True)
    loss.backward()
    assert torch.equal(layer.weight.grad[:3, :4], torch.ones(3, 4))
    assert layer.weight.grad.sum() == 12


def test_a_layer_used_as_a_whole_is_the_plain_one():
    for layer in (SlimmableConv2d(6, 8, 3), SlimmableLinear(6, 8)):
        weight, bias = layer.active_parameters()
        assert weight is layer.weight and bias is layer.bias


@pytest.mark.parametrize('layer, channels', [
    (SlimmableConv2d(6, 8, 3), (7, 8)),
    (SlimmableConv2d(6, 8, 3), (6, 9)),
    (SlimmableConv2d(6, 8, 3), (0, 8)),
    (SlimmableLinear(6, 8), (6, 9)),
    (SlimmableLinear(6, 8), (Channels(((0, 2), (5, 7))), 8)),
    (SlimmableBatchNorm(6), (7, SUBNET, 0)),
])
def test_more_channels_than_there_are_are_refused(layer, channels):
    with pytest.raises(ValueError, match='allowed are 1 to'):
        layer.set_active(*channels)


def test_groups_are_refused():
    with pytest.raises(ValueError, match='groups=2 cannot be slimmed'):
        SlimmableConv2d(4, 4, 3, groups=2)


@pytest.mark.parametrize('shape, plain_type', [
    ((9, 4), nn.BatchNorm1d),
    ((9, 4, 5), nn.BatchNorm1d),
    ((3, 4, 5, 5), nn.BatchNorm2d),
])
def test_batch_norm_in_training_is_the_plain_one(shape, plain_type):
    layer = SlimmableBatchNorm(6)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.set_active(4, SUBNET, 0)
    plain = plain_type(4)
    plain.load_state_dict(layer.plain_state())
    inputs = torch.randn(shape)
    assert torch.equal(layer(inputs), plain(inputs))
    layer(inputs).square().sum().backward()
    assert layer.weight.grad[4:].abs().max() == 0
    assert layer.bias.grad[4:].abs().max() == 0


def test_batch_norm_without_parameters_is_the_plain_one():
    layer = SlimmableBatchNorm(6, affine=False)
    layer.set_active(4, SUBNET, 0)
    plain = nn.BatchNorm1d(4, affine=False)
    plain.load_state_dict(layer.plain_state())
    inputs = torch.randn(9, 4)
    assert torch.equal(layer(inputs), plain(inputs))
    assert not list(layer.parameters())


def test_batch_norm_refuses_to_evaluate_with_anothers_statistics():
    layer = SlimmableBatchNorm(6).eval()
    layer.set_active(4, SUBNET, 0)
    with pytest.raises(RuntimeError, match='no batch norm statistics'):
        layer(torch.rand(2, 4))
    layer.set_statistics(torch.zeros(4), torch.ones(4))
    layer(torch.rand(2, 4))
    layer.set_active(4, Subnet((1.0, ), (1, )), 0)
    with pytest.raises(RuntimeError, match='recalibrate'):
        layer(torch.rand(2, 4))


@pytest.mark.parametrize('change', ['training', 'loading'])
def test_shared_statistics_end_with_the_weights_they_are_of(change):
    layer = SlimmableBatchNorm(4).eval()
    layer.set_active(4, SUBNET, 0)
    layer.set_statistics(torch.zeros(4), torch.ones(4))
    layer(torch.rand(2, 4))
    if change == 'training':
        layer.train()(torch.rand(2, 4))
    else:
        layer.load_state_dict(SlimmableBatchNorm(4).state_dict())
    with pytest.raises(RuntimeError, match='recalibrate'):
        layer.eval()(torch.rand(2, 4))


def test_shared_statistics_are_not_saved_and_private_ones_are():
    assert set(SlimmableBatchNorm(4).state_dict()) == {'weight', 'bias'}
    state = SlimmableBatchNorm(4, num_private=3).state_dict()
    assert {
        key: tuple(value.shape)
        for key, value in state.items()
    } == dict(
        running_mean=(3, 4),
        running_var=(3, 4),
        **{
            f'{name}.{index}': (4, )
            for name in ('weight', 'bias')
            for index in range(3)
        })


def test_private_parameters_and_statistics_are_private():
    torch.manual_seed(0)
    layer = SlimmableBatchNorm(4, num_private=2)
    layer.set_active(3, SUBNET, 1)
    inputs = torch.randn(32, 3) + 5
    plain = nn.BatchNorm1d(3)
    for _ in range(4):
        assert torch.equal(layer(inputs), plain(inputs))
    layer(inputs).square().sum().backward()
    assert layer.weight[0].grad is None
    assert layer.weight[1].grad is not None
    assert torch.equal(layer.running_mean[0], torch.zeros(4))
    assert layer.running_mean[1, 3] == 0
    layer.running_mean[1, :3] = plain.running_mean
    layer.running_var[1, :3] = plain.running_var
    assert torch.allclose(layer.eval()(inputs), plain.eval()(inputs))


@pytest.mark.parametrize('convert', [
    revert_sync_batchnorm, convert_sync_batchnorm,
    nn.SyncBatchNorm.convert_sync_batchnorm
])
def test_conversions_of_sync_bn_keep_the_slimming(convert):
    network = nn.Sequential(SlimmableConv2d(3, 4, 1), SlimmableBatchNorm(4))
    converted = convert(network)
    assert type(converted[0]) is SlimmableConv2d
    assert type(converted[1]) is SlimmableBatchNorm


def test_batch_norm_of_channels_that_are_not_the_first():
    torch.manual_seed(0)
    layer, chosen = SlimmableBatchNorm(6), [0, 1, 4]
    nn.init.normal_(layer.weight)
    layer.set_active(Channels(((0, 2), (4, 5))), SUBNET, 0)
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(layer.plain_state())
    assert torch.equal(plain.weight, layer.weight[chosen])
    inputs = torch.rand(4, 3, 5, 5)
    assert torch.allclose(layer(inputs), plain(inputs))
    mean, var = torch.rand(3), torch.rand(3)
    layer.set_statistics(mean, var)
    assert torch.equal(layer.running_mean[chosen], mean)
    assert layer.running_var[2] == 1
    layer.eval()
    expected = nn.functional.batch_norm(inputs, mean, var,
                                        layer.weight[chosen], torch.zeros(3))
    assert torch.allclose(layer(inputs), expected)
    layer(inputs).sum().backward()
    assert torch.equal(layer.bias.grad > 0, torch.eye(6)[chosen].sum(0) > 0)


def test_private_batch_norm_takes_the_first_channels_only():
    with pytest.raises(ValueError, match="layer's first channels"):
        SlimmableBatchNorm(
            6, num_private=2).set_active(Channels(((1, 2), )), SUBNET, 0)
