# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os

import numpy as np
from conftest import run_tool
from PIL import Image

TOOL = os.path.join('benchmarks', 'throughput.py')


def test_a_machine_is_measured(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for number in range(6):
        pixels = np.full((32, 32, 3), number, np.uint8)
        Image.fromarray(pixels).save(images / f'{number}.png')
    out = tmp_path / 'throughput.json'
    done = run_tool(TOOL, '--images', images, '--device', 'cpu', '--only',
                    'small', '--batch-size', 2, '--steps', 1, '--warmup', 1,
                    '--out', out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    cases = [(row['method'], row['precision']) for row in report['rows']]
    assert cases == [(method, precision)
                     for method in ('byol', 'supernet alone', 'dspnet')
                     for precision in ('float32', 'bfloat16')]
    for row in report['rows']:
        assert row['images_per_s'] > 0 and row['time_to_byol'] > 0
        assert row['method'] != 'byol' or row['time_to_byol'] == 1
    assert report['command'].startswith('python tools/benchmarks/throughput')


def test_bad_input_is_refused(tmp_path):
    for arguments in (['--steps', 0], ['--device', 'abacus']):
        done = run_tool(TOOL, '--images', tmp_path, '--out',
                        tmp_path / 'out.json', *arguments)
        assert done.returncode == 2 and done.stderr.count('\n') == 1
    # Before anything is measured.
    done = run_tool(TOOL, '--images', tmp_path / 'nowhere', '--device', 'cpu',
                    '--out', tmp_path / 'out.json')
    assert done.returncode == 2
    assert 'nowhere' in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2
    assert not (tmp_path / 'out.json').exists()
