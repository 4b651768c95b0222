# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import re
from statistics import mean

import pytest
from conftest import ROOT, run_tool

TOOL = os.path.join('benchmarks', 'methods.py')
REPORT = os.path.join(ROOT, 'tools', 'benchmarks', 'results',
                      'once_vs_one_by_one_digits4.json')


@pytest.fixture
def report():
    with open(REPORT) as file:
        return json.load(file)


def written(report, folder, name):
    path = folder / name
    path.write_text(json.dumps(report))
    return str(path)


def us3l(report):
    """The same report, as if it were US3L's."""
    return json.loads(json.dumps(report).replace('"dspnet"', '"us3l"'))


def test_each_way_to_train_comes_once(report, tmp_path):
    other = us3l(report)
    # Three seeds of it, the other way round, and twice as dear.
    seeds = other['seeds'][2::-1]
    del other['by_seed']['seed']
    for way, of_seeds in other['by_seed'].items():
        other['by_seed'][way] = of_seeds[2::-1]
    # And a fourth that only one of the ways has.
    other['by_seed']['us3l'].append(other['by_seed']['us3l'][0])
    other['seeds'] = [*seeds, 3]
    other['costs']['us3l'] = [2 * each for each in other['costs']['us3l']]
    out = tmp_path / 'methods.json'
    done = run_tool(TOOL, REPORT, written(other, tmp_path, 'us3l.json'),
                    '--out', out)
    assert done.returncode == 0, done.stderr
    written_out = json.loads(out.read_text())
    rows = written_out['rows']
    assert written_out['seeds'] == sorted(seeds) == report['seeds'][:3]
    ways = [row['method'] for row in rows]
    assert [*dict.fromkeys(ways)] == ['dspnet', 'byol', 'seed', 'us3l']
    assert len(rows) == 4 + 4 + 3 + 4
    # SEED trains three, from the largest of the four.
    costs = {row['method']: row['cost_ratio'] for row in rows}
    assert costs['byol'] == 1
    assert costs['us3l'] == pytest.approx(2 * costs['dspnet'])
    assert {row['cost_of'] for row in rows} == {'byol'}
    total = {way: costs[-1] for way, costs in report['costs'].items()}
    for way in ('dspnet', 'seed'):
        assert costs[way] == pytest.approx(total[way] / total['byol'])
    # Of the same seeds, whatever their order.
    for metric in ('knn', 'linear'):
        assert rows[-1][metric] == pytest.approx(rows[3][metric])
        assert rows[3][metric]['mean'] == pytest.approx(
            mean(outcome['accuracies']['tiny'][metric]
                 for outcome in report['by_seed']['dspnet'][:3]))
    assert re.search(r'\| US3L +\| tiny +\|.*\| 0.\d+ \| BYOL, one by one \|',
                     done.stdout)


@pytest.mark.parametrize(
    'change, complaint',
    [
        (lambda report: report['rows'].pop(), 'differ in their networks'),
        (lambda report: report['budget'].update(epochs=7), 'in their budget'),
        (lambda report: report.update(command=report['command'].replace(
            'digits', 'data/mine')), 'in their budget'),
        (lambda report: report.update(seconds='GPU seconds'), 'unit of cost'),
        (lambda report: report.update(seeds=[100, 101]),
         r'0 seed\(s\) in common'),
        (lambda report: report.update(seeds=[0, *range(100, 129)]),
         r'1 seed\(s\) in common'),
        (lambda report: report.update(rows=[]), 'is no report'),
        (lambda report: report.pop('figures'), 'is no report'),
        (lambda report: report.clear(), 'is no report'),
        # As those of routed_vs_unified.py.
        (lambda report: report.update(rows=[dict(task='pets')]), 'is no report'
         ),
    ])
def test_what_cannot_be_compared_is_refused(report, tmp_path, change,
                                            complaint):
    other = us3l(report)
    # SEED's is the last row; the others have to be there.
    other['rows'] = [row for row in other['rows'] if row['method'] == 'us3l']
    other['rows'] += [row for row in report['rows'] if row['method'] == 'byol']
    if 'networks' in complaint:
        other['rows'] = [
            row for row in other['rows'] if row['subnet'] != 'tiny'
        ]
    change(other)
    out = tmp_path / 'methods.json'
    done = run_tool(TOOL, REPORT, written(other, tmp_path, 'other.json'),
                    '--out', out)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert not out.exists()


def test_a_report_is_not_replaced_by_the_table(report, tmp_path):
    path = written(report, tmp_path, 'report.json')
    done = run_tool(TOOL, path, '--out', path)
    assert done.returncode == 2
    assert 'is one of the reports' in done.stderr
    assert json.loads((tmp_path / 'report.json').read_text()) == report
