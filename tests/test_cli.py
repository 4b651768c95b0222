# Copyright (c) The dspnet_mm authors. All rights reserved.
import argparse
import sys

import pytest

from dspnet_mm.cli import add_options, command_line, run
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


@pytest.mark.parametrize('folder', ['tools', 'tools/benchmarks'])
def test_the_command_names_the_tool_from_anywhere(monkeypatch, folder):
    monkeypatch.setattr(sys, 'argv', ['../somewhere', 'a b', '--seed', '1'])
    assert command_line(f'/my tools/{folder}/tool.py') == \
        f"python {folder}/tool.py 'a b' --seed 1"


@pytest.mark.parametrize('seed', ['-1', '4294967296', '1.5', 'one'])
def test_a_seed_is_one_for_all_libraries(capsys, seed):
    parser = argparse.ArgumentParser()
    add_options(parser, 'seed')
    assert parser.parse_args([]).seed == 0
    assert parser.parse_args(['--seed', '4294967295']).seed == 2**32 - 1
    with pytest.raises(SystemExit):
        parser.parse_args(['--seed', seed])
    assert f'{seed} is not allowed' in capsys.readouterr().err
