#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Write the tables of the READMEs from the results they stand for.

A table stands between ``<!-- table NAME.json -->`` and ``<!-- end -->``, NAME
being a file in tools/benchmarks/results; ``<!-- table NAME.json figures -->``
is of what a comparison of ways to train comes to, and another word instead of
``figures`` names the part of the file whose rows are shown.
"""
import argparse
import json
import os
import re
import sys
from typing import List, Optional

from result_tables import comparisons, results_table

from dspnet_mm.cli import run
from dspnet_mm.errors import InputError
from dspnet_mm.files import whole_file

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(ROOT, 'tools', 'benchmarks', 'results')
READMES = ('README.md',
           *(f'configs/{name}/README.md'
             for name in ('benchmarks', 'dspnet', 'sdr', 'slimclr', 'us3l')))
PATTERN = re.compile(
    r'(<!-- table (?P<name>[\w.-]+\.json)(?: (?P<part>\w+))? -->\n).*?'
    r'(<!-- end -->)', re.DOTALL)


def rows_of(result: dict, part: Optional[str]) -> List[dict]:
    """The rows of a part of a result."""
    if part is None:
        # Where rows are single trainings, what they come to.
        return result.get('summary', result['rows'])
    return comparisons(result) if part == 'figures' else result[part]


def table(match: re.Match) -> str:
    """The table that a match stands for, between its two comments."""
    path = os.path.join(RESULTS, match['name'])
    try:
        with open(path) as file:
            result = json.load(file)
        rows = rows_of(result, match['part'])
        if not rows:
            raise ValueError(f'no {match["part"] or "rows"} in it')
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f'{path} cannot be read ({error}): write it with the '
                         'command that its README names')
    return f'{match[1]}\n{results_table(rows)}\n\n{match[match.lastindex]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; exit with 1 where a README is out of date')
    args = parser.parse_args()
    outdated = []
    for name in READMES:
        path = os.path.join(ROOT, name)
        with open(path) as file:
            old = file.read()
        new = PATTERN.sub(table, old)
        if new == old:
            continue
        outdated.append(name)
        if not args.check:
            with whole_file(path) as temporary, open(temporary, 'w') as file:
                file.write(new)
            print(f'written: {name}')
    if args.check and outdated:
        print(f'out of date: {" ".join(outdated)}; run python '
              'tools/benchmarks/readme_tables.py')
        sys.exit(1)


if __name__ == '__main__':
    run(main)
