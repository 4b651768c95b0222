#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Put what once_vs_one_by_one.py says of several methods side by side."""
import argparse
import json
import os
import shlex
from typing import Dict, Iterable, List, Sequence, Tuple

from result_tables import results_table

from dspnet_mm.cli import command_line, run
from dspnet_mm.errors import InputError
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.means import mean_and_error
from dspnet_mm.versions import merged_versions

# What tells reports of once_vs_one_by_one.py, and those of any comparison.
OF_ANY = ('budget', 'seeds', 'command')
OF_WAYS = (*OF_ANY, 'by_seed', 'costs', 'figures', 'seconds', 'settings',
           'versions')


def read(path: str,
         needed: Sequence[str] = OF_WAYS,
         remedy: str = 'give what once_vs_one_by_one.py wrote') -> dict:
    """Read a report.

    Args:
        path (str): The JSON file.
        needed (Sequence[str]): What it must have besides rows. Defaults to
            ``OF_WAYS``.
        remedy (str): What to do about a file that is none. Defaults to giving
            another report.

    Raises:
        InputError: If it is none.
    """
    try:
        with open(path) as file:
            report = json.load(file)
        if set(needed) - set(report) or not report['rows'] or (
                needed == OF_WAYS and 'subnet' not in report['rows'][0]):
            raise ValueError('it says nothing of ways to train')
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f'{path} is no report ({error}): {remedy}')
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
    common = common_seeds(reports.values())
    if len(common) < 2:
        raise InputError(f'{", ".join(reports)} have {len(common)} seed(s) in '
                         'common: give reports of the same --first-seed, at '
                         'least 2 seeds each')


def networks(report: dict) -> set:
    """What is trained."""
    return {(row['subnet'], row['flops']) for row in report['rows']}


def trained_on(report: dict) -> Tuple[dict, str]:
    """How much, and on what data."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--data', default='')
    known, _ = parser.parse_known_args(shlex.split(report['command']))
    return report['budget'], known.data.rstrip('/')


def common_seeds(reports: Iterable[dict]) -> List[int]:
    """The seeds that all ways of all reports have."""
    # A way may have the first ones alone.
    seeds = [
        report['seeds'][:min(map(len, report['by_seed'].values()))]
        for report in reports
    ]
    return [seed for seed in seeds[0] if all(seed in each for each in seeds)]


def rows_of(reports: List[dict]) -> List[dict]:
    """A row for each network of each way to train, each way once.

    All rows are of the same seeds. Costs are parts of what all networks cost
    that are trained one by one, by what the method builds on, ``cost_of``:
    the seconds of reports that were measured apart do not compare.
    """
    seeds = common_seeds(reports)
    rows: List[dict] = []
    for report in reports:
        flops = {row['subnet']: row['flops'] for row in report['rows']}
        _, alone, *_ = report['by_seed']
        by_way = {
            way: [of_seeds[report['seeds'].index(seed)] for seed in seeds]
            for way, of_seeds in report['by_seed'].items()
        }
        seconds = {way: costs[-1] for way, costs in report['costs'].items()}
        known = {row['method'] for row in rows}
        rows += [
            dict(
                method=way,
                subnet=name,
                flops=flops[name],
                **{
                    metric:
                    mean_and_error([
                        each['accuracies'][name][metric] for each in of_seeds
                    ])
                    for metric in ('knn', 'linear')
                },
                cost_ratio=seconds[way] / seconds[alone],
                cost_of=alone) for way, of_seeds in by_way.items()
            if way not in known for name in of_seeds[0]['accuracies']
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
    if os.path.realpath(args.out) in map(os.path.realpath, args.reports):
        raise InputError(f'--out {args.out} is one of the reports: give '
                         'another file')
    reports = {path: read(path) for path in args.reports}
    check_alike(reports)
    rows = rows_of([*reports.values()])
    write_json(
        args.out,
        dict(
            rows=rows,
            seeds=common_seeds(reports.values()),
            versions=merged_versions(
                [report['versions'] for report in reports.values()]),
            command=command_line(__file__)))
    print(results_table(rows))


if __name__ == '__main__':
    run(main)
