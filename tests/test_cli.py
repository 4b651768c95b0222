# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest

from dspnet_mm.cli import run
from dspnet_mm.errors import InputError, VerificationError


@pytest.mark.parametrize(
    'error, code, line',
    [
        (InputError('give\nanother'), 2, 'error: give another'),
        (VerificationError('differs'), 1, 'error: differs'),
        (OSError(28, 'No space left on device',
                 'a.pth'), 2, 'error: a.pth: No space left on device'),
        (OSError(28, 'No space left on device'), 2,
         'error: No space left on device'),
        # As PIL and others raise it, without a number.
        (OSError('image file is\ntruncated'), 2,
         'error: image file is truncated'),
        (TimeoutError(), 2, 'error: TimeoutError'),
        (KeyboardInterrupt(), 130, 'stopped'),
    ])
def test_what_ends_a_tool_is_one_line(capsys, error, code, line):

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == code
    assert capsys.readouterr().err == f'{line}\n'
