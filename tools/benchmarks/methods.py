#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Put what once_vs_one_by_one.py says of several methods side by side."""
import argparse
import json
import shlex
import sys
from statistics import mean
from typing import Dict, List, Tuple

from dspnet_mm.cli import markdown_table, run
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation.report import METHODS
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.versions import versions

NAME = 'tools/benchmarks/methods.py'
_KEPT = ('method', 'subnet', 'flops', 'knn', 'linear')


def read(path: str) -> dict:
    """Read a report of once_vs_one_by_one.py.

    Raises:
        InputError: If it is none.
    """
    try:
        with open(path) as file:
            report = json.load(file)
        if {'rows', 'by_seed', 'figures', 'settings', 'budget'} - set(report):
            raise ValueError('it says nothing of ways to train')
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f'{path} is no report ({error}): give what '
                         'once_vs_one_by_one.py wrote')
    return report


def check_alike(reports: Dict[str, dict]) -> None:
    """Refuse reports of other networks or other amounts of training.

    Args:
        reports (dict): By path.

    Raises:
        InputError: If they cannot stand in one table.
    """
    first, *others = reports
    for path in others:
        for what, of in (('networks', networks), ('budget', trained_on),
                         ('unit of cost', lambda report: report['seconds'])):
            if of(reports[path]) != of(reports[first]):
                raise InputError(
                    f'{path} and {first} differ in their {what}: give reports '
                    'of the same --data, --budget and --dns')
        both = set(reports[path]['seeds']) & set(reports[first]['seeds'])
        if not both:
            raise InputError(f'{path} and {first} have no seed in common')


def networks(report: dict) -> set:
    """What is trained."""
    return {(row['subnet'], row['flops']) for row in report['rows']}


def trained_on(report: dict) -> Tuple[dict, str]:
    """How much, and on what data."""
    command = shlex.split(report['command'])
    return (report['budget'], command[command.index('--data') + 1])


def rows_of(reports: List[dict]) -> List[dict]:
    """A row for each network of each way to train, each way once.

    Costs are parts of what all networks cost that are trained one by one, by
    what the method builds on, and the mean seconds of a seed.
    """
    rows: List[dict] = []
    for report in reports:
        method, alone, *_ = report['by_seed']
        ratio = report['figures']['cost_ratio']
        costs = {method: ratio, alone: 1.}
        if 'seed_cost_ratio' in report['figures']:
            costs['seed'] = ratio / report['figures']['seed_cost_ratio']
        known = {row['method'] for row in rows}
        for way, of_seeds in report['by_seed'].items():
            if way not in known:
                seconds = mean(
                    sum(cost['seconds'] for cost in each['costs'])
                    for each in of_seeds)
                rows += [
                    dict({key: row[key]
                          for key in _KEPT},
                         cost_ratio=costs[way],
                         seconds=seconds,
                         seeds=len(report['seeds'])) for row in report['rows']
                    if row['method'] == way
                ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'reports',
        nargs='+',
        metavar='REPORT.json',
        help='of once_vs_one_by_one.py, with the same --data, --budget and '
        '--dns')
    parser.add_argument(
        '--out', required=True, metavar='FILE.json', help='what is written')
    args = parser.parse_args()
    check_writable(args.out)
    reports = {path: read(path) for path in args.reports}
    check_alike(reports)
    rows = rows_of([*reports.values()])
    write_json(
        args.out,
        dict(
            rows=rows,
            seeds={
                [*report['by_seed']][0]: report['seeds']
                for report in reports.values()
            },
            versions=versions(),
            command=shlex.join(['python', NAME, *sys.argv[1:]])))

    def text(value: Dict[str, float]) -> str:
        return f'{100 * value["mean"]:.1f} ± {100 * value["se"]:.1f}'

    print(
        markdown_table(
            ('method', 'sub-network', 'kNN', 'linear probe', 'cost',
             reports[args.reports[0]]['seconds'], 'seeds'),
            [(METHODS[row['method']], row['subnet'], text(
                row['knn']), text(row['linear']), f'{row["cost_ratio"]:.2f}',
              f'{row["seconds"]:.0f}', str(row['seeds'])) for row in rows]))


if __name__ == '__main__':
    run(main)
