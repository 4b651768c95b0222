# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import runpy
import sys
from unittest import mock

import pytest
from conftest import ROOT, run_tool

TOOL = os.path.join('benchmarks', 'engine.py')
RESULTS = os.path.join(ROOT, 'tools', 'benchmarks', 'results', 'engine.json')


def measure(path, *args):
    """Run the tool where all is tiny, and read what it writes."""
    done = run_tool(TOOL, '--quick', '--repeats', 1, '--out', path, *args)
    assert done.returncode == 0, done.stderr
    with open(path) as file:
        return json.load(file), done


def test_figures_stand_beside_their_bounds(tmp_path):
    report, done = measure(tmp_path / 'engine.json', '--only',
                           'reductions_per_step')
    assert report['figures'] == dict(reductions_per_step=1)
    row, = report['rows']
    assert row['value'] == 1 and row['met'] is True and row['bound'] == '= 1'
    measured = report['measurements']['reductions_per_step']
    steps = [
        step for rank in measured['bytes_by_process_and_step'] for step in rank
    ]
    assert len(steps) == 6 and len(set(map(tuple, steps))) == 1
    assert measured['command'].startswith('python tools/benchmarks/engine.py')
    assert measured['repeats'] == 1
    assert report['quick'] is True and report['threads'] == 1
    assert report['seeds'] == [0] and report['versions']['torch']
    rows = [line for line in done.stdout.splitlines() if line[:1] == '|']
    assert len(rows) == 3
    assert rows[2].startswith('| reductions_per_step | 1     | = 1   | yes ')


def test_parts_are_measured_anew_one_by_one(tmp_path):
    path = tmp_path / 'engine.json'
    first, _ = measure(path, '--only', 'activation_ms')
    first['measurements']['reductions_per_step'] = dict(value=2)
    path.write_text(json.dumps(first))
    second, done = measure(path, '--only', 'activation_ms')
    assert second['figures']['reductions_per_step'] == 2
    old, new = (
        report['measurements']['activation_ms'] for report in (first, second))
    assert old['samples_ms'] != new['samples_ms']
    # What activation takes is this machine's matter, whether within its bound
    # or not.
    met = {
        row[1].strip(): row[4].strip()
        for row in (line.split('|') for line in done.stdout.splitlines())
        if len(row) > 4
    }
    assert met['reductions_per_step'] == 'no' and 'activation_ms' in met

    first['versions']['torch'] = '0.4.1'
    path.write_text(json.dumps(first))
    done = run_tool(TOOL, '--quick', '--out', path, '--only', 'activation_ms')
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert 'torch 0.4.1' in done.stderr and 'without --only' in done.stderr
    assert json.loads(path.read_text()) == first


@pytest.mark.parametrize('arguments, complaint', [
    (['--quick'], 'give another file'),
    (['--repeats', '0'], 'at least 1'),
    (['--device', 'abacus'], "'abacus' cannot be used"),
    (['--only', 'activation_ms', '--out', __file__], 'holds no figures'),
])
def test_what_cannot_be_measured_is_refused(arguments, complaint):
    done = run_tool(TOOL, *arguments)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and complaint in done.stderr
    assert not done.stdout


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path):
    report, _ = measure(tmp_path / 'engine.json')
    assert list(report['figures']) == [
        'peak_memory_ratio_n3', 'peak_memory_ratio_n8', 'subnet_overhead_max',
        'activation_ms', 'step_ratio_to_byol', 'gradient_hook_ratio',
        'pipeline_ratio_32', 'pipeline_ratio_224', 'reductions_per_step',
        'kills_survived', 'routing_minutes'
    ]
    assert all(value > 0 for value in report['figures'].values())
    parts = {
        name: measured.get('parts', ())
        for name, measured in report['measurements'].items()
    }
    # Each desired network of both families.
    assert len(parts['subnet_overhead_max']) == 8
    assert len(parts['step_ratio_to_byol']) == 4
    assert len(parts['pipeline_ratio_32']) == 2


def test_the_results_are_of_the_whole_and_met():
    with open(RESULTS) as file:
        report = json.load(file)
    assert report['quick'] is False
    assert len(report['figures']) == 11
    folder = os.path.join(ROOT, 'tools', 'benchmarks')
    with mock.patch.object(sys, 'path', [folder, *sys.path]):
        tool = runpy.run_path(os.path.join(folder, 'engine.py'))
    assert report['figures'].keys() == tool['FIGURES'].keys()
    for name, figure in tool['FIGURES'].items():
        value = report['figures'][name]
        assert tool['RELATIONS'][figure.relation](value, figure.bound), name
