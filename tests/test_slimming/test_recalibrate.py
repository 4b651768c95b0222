# Copyright (c) The dspnet_mm authors. All rights reserved.
import numpy as np
import pytest
import torch
from conftest import make_family
from torch import nn

from dspnet_mm.models import SlimmableBatchNorm, SlimmableResNet, activate
from dspnet_mm.slimming import recalibrate, slim


def inputs_of_batch_norms(network, batches):
    """What reaches each batch norm in evaluation mode, over all batches."""
    kinds = (SlimmableBatchNorm, nn.BatchNorm2d)
    seen = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, inputs: seen.setdefault(module, []).append(inputs[
                0].double().numpy())) for module in network.modules()
        if isinstance(module, kinds)
    ]
    network.eval()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for handle in handles:
        handle.remove()
    return {module: np.concatenate(parts) for module, parts in seen.items()}


def make_batches(sizes=(7, 7, 3)):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(n, 3, 16, 16, generator=generator) for n in sizes]


@pytest.mark.parametrize('sizes', [(7, 7, 3), (17, )])
@pytest.mark.parametrize('depth', [18, 50])
def test_statistics_are_numpys_over_the_whole_set(depth, sizes):
    """The last short batch included."""
    torch.manual_seed(0)
    family = make_family(depth)
    backbone = SlimmableResNet(family)
    batches = make_batches(sizes)
    with activate(family['middle'], backbone):
        recalibrate(backbone, batches)
        seen = inputs_of_batch_norms(backbone, batches)
        assert len(seen) == len([
            layer for layer in backbone.active_layers().values()
            if isinstance(layer, SlimmableBatchNorm)
        ])
        for norm, values in seen.items():
            mean = norm._active(norm.running_mean).numpy()
            var = norm._active(norm.running_var).numpy()
            scale = values.std((0, 2, 3))
            assert np.abs(mean - values.mean((0, 2, 3))).max() <= \
                1e-5 * scale.max()
            assert var == pytest.approx(
                values.var((0, 2, 3)), rel=1e-4, abs=1e-8)


def test_a_plain_network_gets_what_the_active_subnetwork_gets():
    torch.manual_seed(0)
    family = make_family()
    backbone = SlimmableResNet(family)
    batches = make_batches()
    plain = slim(backbone, family['tiny'])
    recalibrate(plain, batches)
    with activate(family['tiny'], backbone):
        recalibrate(backbone, batches)
    for key, tensor in slim(backbone, family['tiny']).state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[key]), key


def test_how_images_are_cut_into_batches_does_not_matter():
    torch.manual_seed(0)
    family = make_family()
    backbone = SlimmableResNet(family)
    images = torch.cat(make_batches())
    states = []
    for size in (17, 5):
        with activate(family.full, backbone):
            recalibrate(backbone, images.split(size))
        states.append(slim(backbone, family.full).state_dict())
    for key in states[0]:
        assert torch.allclose(
            states[0][key], states[1][key], rtol=1e-4, atol=1e-6), key


def test_it_is_training_mode_with_all_images_in_one_batch():
    torch.manual_seed(0)
    plain = slim(SlimmableResNet(make_family()), make_family().full)
    images = torch.cat(make_batches())
    recalibrate(plain, images.split(5))
    evaluated = plain.eval()(images)[-1]
    trained = plain.train()(images)[-1]
    assert torch.allclose(evaluated, trained, atol=1e-4)


def test_modes_are_as_before_also_after_an_exception():
    backbone = SlimmableResNet(make_family())
    backbone.layer1.eval()
    recalibrate(backbone, make_batches())
    assert backbone.training and not backbone.layer1.training
    with pytest.raises(RuntimeError):
        recalibrate(backbone, [torch.rand(2, 5, 8, 8)])
    assert backbone.training and not backbone.layer1.training
    assert not backbone.bn1._forward_pre_hooks


def test_no_images_are_refused():
    with pytest.raises(ValueError, match='no images'):
        recalibrate(SlimmableResNet(make_family()), [])
