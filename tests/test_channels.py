# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest

from dspnet_mm.channels import Channels, number_of, slices_of


def test_channels_are_a_value_that_scales_with_a_layer():
    channels = Channels(((0, 2), (4, 5)))
    assert len(channels) == number_of(channels) == 3
    assert channels * 2 == Channels(((0, 4), (8, 10)))
    assert slices_of(channels) == (slice(0, 2), slice(4, 5))
    assert slices_of(3) == (slice(0, 3), )
    assert number_of(3) == 3


@pytest.mark.parametrize('ranges', [
    (),
    ((0, 0), ),
    ((2, 1), ),
    ((-1, 2), ),
    ((0, 3), (2, 4)),
    ((2, 4), (0, 1)),
])
def test_what_are_no_channels_is_refused(ranges):
    with pytest.raises(ValueError, match='are no channels'):
        Channels(ranges)
