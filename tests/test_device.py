# Copyright (c) The dspnet_mm authors. All rights reserved.
from unittest import mock

import pytest

from dspnet_mm.device import check_device, make_current
from dspnet_mm.errors import InputError


def test_a_device_that_is_none_is_refused():
    check_device('cpu')
    with pytest.raises(InputError, match="device 'tpu' cannot be used"):
        check_device('tpu')


@pytest.mark.parametrize('device, chosen', [('cuda:1', 1), ('cuda', None),
                                            ('cpu', None), ('cpu:0', None)])
def test_the_current_device_is_the_one_that_is_named(device, chosen):
    with mock.patch('torch.cuda.set_device') as set_device:
        make_current(device)
    assert [call.args[0].index for call in set_device.mock_calls
            ] == ([] if chosen is None else [chosen])
