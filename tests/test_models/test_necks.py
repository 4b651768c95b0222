# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest
import torch
from conftest import make_family
from mmselfsup.models.necks import NonLinearNeck

from dspnet_mm.models import SlimmableNonLinearNeck, activate
from dspnet_mm.slimming import recalibrate


def make_neck(family, **kwargs):
    settings = dict(
        in_channels=64,
        hid_channels=16,
        out_channels=4,
        num_layers=3,
        with_bias=True,
        with_last_bn=False)
    settings.update(kwargs)
    return SlimmableNonLinearNeck(family, **settings)


@pytest.mark.parametrize('last', [
    dict(with_last_bn=False),
    dict(with_last_bn=True),
    dict(with_last_bn=True, with_last_bn_affine=False),
])
def test_the_full_neck_is_mmselfsups(last):
    torch.manual_seed(0)
    neck = make_neck(make_family(), **last)
    upstream = NonLinearNeck(
        64,
        16,
        4,
        3,
        with_bias=True,
        **last,
        norm_cfg=dict(type='BN1d', track_running_stats=False))
    upstream.load_state_dict(neck.state_dict(), strict=True)
    features = (torch.rand(5, 64, 2, 2), )
    assert torch.equal(neck(features)[0], upstream(features)[0])


@pytest.mark.parametrize('slim_hidden, hidden', [(False, 16), (True, 4)])
def test_a_projector_takes_each_width_and_puts_out_one_size(
        slim_hidden, hidden):
    family = make_family()
    neck = make_neck(family, slim_hidden=slim_hidden)
    with activate(family['tiny'], neck):
        output, = neck((torch.rand(5, 16, 2, 2), ))
        assert neck.fc0.active_out == neck.bn0.active_features == hidden
        assert neck.fc2.active_in == hidden
    assert output.shape == (5, 4)
    output.sum().backward()
    assert neck.fc0.weight.grad[:, 16:].abs().max() == 0


def test_a_predictor_keeps_its_input():
    family = make_family()
    neck = make_neck(
        family, in_channels=4, slim_input=False, with_avg_pool=False)
    with activate(family['tiny'], neck):
        assert neck((torch.rand(5, 4), ))[0].shape == (5, 4)


def test_recalibration_of_one_dimensional_batch_norm_is_numpys():
    torch.manual_seed(0)
    family = make_family()
    neck = make_neck(family, slim_hidden=True)
    batches = [(torch.rand(n, 16, 1, 1), ) for n in (7, 7, 3)]
    with activate(family['tiny'], neck):
        recalibrate(neck, batches)
        values = torch.cat(
            [neck.fc0(batch[0].flatten(1)) for batch in batches])
        values = values.detach().numpy().astype('float64')
        assert neck.bn0._active(
            neck.bn0.running_mean).numpy() == pytest.approx(
                values.mean(0), rel=1e-5, abs=1e-7)
        assert neck.bn0._active(neck.bn0.running_var).numpy() == pytest.approx(
            values.var(0), rel=1e-5)
