# Copyright (c) The dspnet_mm authors. All rights reserved.
import numpy as np
import pytest
from conftest import make_family

from dspnet_mm.models.loss_weights import SCHEMES, weights_of

WIDTHS = np.array([1., 0.75, 0.5, 0.25])
# Written out for SlimCLR's four widths.
EXPECTED = dict(
    sum=np.ones(4),
    mean=np.ones(4) / 4,
    largest_outweighs=np.array([1 + 0.75 + 0.5 + 0.25, 1, 1, 1]),
    width=WIDTHS,
    width_share=WIDTHS / 2.5,
    width_over_mean=4 * WIDTHS / 2.5,
    smaller_added=4 * np.array([2.5, 1.75, 1.25, 1]) / 6.5)


@pytest.fixture
def slimclrs():
    return make_family(desired=[
        dict(name=f'w{width}', widths=float(width)) for width in WIDTHS
    ])


def test_each_scheme_is_tested():
    assert SCHEMES.keys() == EXPECTED.keys()


@pytest.mark.parametrize('scheme', EXPECTED)
def test_schemes(scheme, slimclrs):
    subnets = list(slimclrs.desired.values())
    weights = weights_of(scheme, subnets, slimclrs)
    assert weights == pytest.approx(EXPECTED[scheme].tolist())
    # Whatever the order.
    assert weights_of(scheme, subnets[::-1], slimclrs) == pytest.approx(
        EXPECTED[scheme].tolist()[::-1])


def test_what_is_no_desired_network_has_a_weight_by_its_label():
    family = make_family(
        desired=[dict(name='middle', widths=0.5)], min_widths=0.25)
    subnets = [family.full, family.subnet(0.75), family.smallest]
    weights = dict(largest=3., random=0.5, smallest=0.25)
    assert weights_of(weights, subnets, family) == [3., 0.5, 0.25]
    assert weights_of(dict(random=0.5), subnets, family) == [1., 0.5, 1.]


def test_alone_the_supernet_has_its_own_weight(slimclrs):
    alone = [slimclrs.full]
    assert weights_of('largest_outweighs', alone, slimclrs) == [1.]
