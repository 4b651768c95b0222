# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import subprocess
import sys

from conftest import ROOT, run_tool

KILLS = os.path.join(ROOT, 'tools', 'benchmarks', 'kills.py')


def test_a_killed_training_ends_as_one_that_was_not(tmp_path):
    """In a process of its own, since it forks; more often in the benchmark."""
    out = tmp_path / 'kills.json'
    done = subprocess.run(
        [sys.executable, KILLS, '--kills', '3', '--out',
         str(out)],
        capture_output=True,
        text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result['kills_survived'] == 3
    assert result['while_writing'] >= 1


def test_bad_input_is_refused(tmp_path):
    for arguments, complaint in ((['--kills',
                                   0], '--kills 0'), (['--keep',
                                                       tmp_path], 'exists')):
        done = run_tool('benchmarks/kills.py', *arguments, '--out',
                        tmp_path / 'kills.json')
        assert done.returncode == 2 and complaint in done.stderr
    assert not (tmp_path / 'kills.json').exists()
