#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Draw what GradientHook recorded: imbalance and divergence of gradients."""
import argparse
import glob
import json
import math
import os
import re
from itertools import chain
from statistics import mean
from typing import Dict, List, Optional, Tuple

from matplotlib.figure import Figure

from dspnet_mm.cli import command_line, run
from dspnet_mm.errors import InputError
from dspnet_mm.files import check_writable, whole_file, write_json
from dspnet_mm.means import mean_and_error
from dspnet_mm.plots import check_picture
from dspnet_mm.versions import versions

PREFIX = 'gradients/'
PANELS = (('imbalance_', 'gradient on a sub-network\'s parameters\n'
           'over that on others (1: as alone)'), ('cosine_',
                                                  'cosine of two gradients'))
Curves = Dict[str, List[Tuple[int, float]]]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'rows',
        nargs='+',
        metavar='ROW',
        help='the work directory of a training with GradientHook; or several, '
        'joined by commas, which differ in their seed alone and make one row; '
        'NAME= in front says what a row is called')
    parser.add_argument(
        '--out',
        required=True,
        metavar='PICTURE.png',
        help='where it goes, and beside it, as .json, means over the second '
        'half of the trainings')
    return parser.parse_args()


def trainings_of(row: str) -> Tuple[str, List[str]]:
    """What a row is called, and the work directories that it is of."""
    name, _, work_dirs = row.rpartition('=')
    # A folder may be called anything.
    found = [row] if os.path.isdir(row) else work_dirs.split(',')
    if found == [row]:
        name = ''
    return name or os.path.basename(os.path.abspath(found[0])), found


def read(work_dir: str) -> Curves:
    """What was recorded, by iteration, a resumed run's parts together.

    Where a later part begins, what was recorded before ends.
    """
    if not os.path.isdir(work_dir):
        raise InputError(f'there is no folder {work_dir}: give the work '
                         'directory of a training')
    curves: Dict[str, Dict[int, float]] = {}
    for path in sorted(
            glob.glob(
                os.path.join(
                    glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        part: Dict[str, Dict[int, float]] = {}
        with open(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    step, values = recorded(line)
                except (ValueError, TypeError, KeyError,
                        AttributeError) as error:
                    raise InputError(f'{path}, line {number} is not what '
                                     f'training writes ({error}): remove it')
                for key, value in values.items():
                    part.setdefault(key, {})[step] = value
        begin = min(chain(*part.values()), default=math.inf)
        for key in {*curves, *part}:
            before = curves.get(key, {}).items()
            curves[key] = {
                **{
                    step: value
                    for step, value in before if step < begin
                },
                **part.get(key, {})
            }
    if not curves:
        raise InputError(f'{work_dir} holds no gradients: train with '
                         "dict(type='GradientHook') among the hooks")
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def seed_of(work_dir: str) -> Optional[int]:
    """A training's seed, by the config that MMEngine keeps beside the figures.

    It is read as text: running what lies in a work directory is not needed.

    Returns:
        int, optional: None where no config is there, or one without a seed.
    """
    for path in glob.glob(
            os.path.join(glob.escape(work_dir), '*', 'vis_data', 'config.py')):
        with open(path) as file:
            found = re.search(r'^randomness = dict\([^)]*\bseed=(\d+)',
                              file.read(), re.MULTILINE)
        if found:
            return int(found[1])
    return None


def recorded(line: str) -> Tuple[int, Dict[str, float]]:
    """The iteration of a line, and its gradients' figures."""
    values = json.loads(line)
    found = {
        key[len(PREFIX):]: float(value)
        for key, value in values.items() if key.startswith(PREFIX)
    }
    # Where something was not finite, there is nothing to draw.
    found = {
        key: value
        for key, value in found.items() if math.isfinite(value)
    }
    return int(values['step']) if found else 0, found


def draw(rows: Dict[str, Curves]) -> Figure:
    """Draw each row, a panel for each kind of figure."""
    figure = Figure(figsize=(13, 3.2 * len(rows)), layout='constrained')
    axes = figure.subplots(
        len(rows), 2, squeeze=False, sharex=True, sharey='col')
    for line, (title, curves) in zip(axes, rows.items()):
        for panel, (prefix, label) in zip(line, PANELS):
            # In one order, so that a colour means the same in all rows.
            for name, points in sorted(curves.items()):
                if name.startswith(prefix):
                    panel.plot(*zip(*points), label=name[len(prefix):])
            panel.set_title(title)
            panel.set_xlabel('iteration')
            panel.set_ylabel(label)
            panel.axhline(
                1 if prefix == PANELS[0][0] else 0, color='grey', linewidth=1)
            # Beside the curves, which fill the panel.
            panel.legend(
                fontsize='small', loc='upper left', bbox_to_anchor=(1, 1))
    return figure


def pooled(trainings: List[Curves]) -> Curves:
    """The means over trainings, by iteration."""
    values: Dict[str, Dict[int, List[float]]] = {}
    for curves in trainings:
        for name, points in curves.items():
            of_steps = values.setdefault(name, {})
            for step, value in points:
                of_steps.setdefault(step, []).append(value)
    return {
        name: [(step, mean(each)) for step, each in sorted(of_steps.items())]
        for name, of_steps in values.items()
    }


def means(title: str, trainings: List[Curves]) -> List[dict]:
    """A line for each figure: its mean over the trainings' second half.

    Before, a slow start has no figures of smaller sub-networks. Of several
    trainings it has an error: what one recorded is not independent.
    """
    last = max(step for curves in trainings for points in curves.values()
               for step, _ in points)
    lines = []
    for name in sorted({*chain(*trainings)}):
        halves = [[
            value for step, value in curves.get(name, []) if 2 * step > last
        ] for curves in trainings]
        of_each = [mean(values) for values in halves if values]
        if of_each:
            lines.append(
                dict(
                    training=title,
                    figure=name,
                    second_half=mean_and_error(of_each)
                    if len(of_each) > 1 else of_each[0],
                    trainings=len(of_each)))
    return lines


def main() -> None:
    args = parse_args()
    report = f'{os.path.splitext(args.out)[0]}.json'
    check_picture(args.out)
    check_writable(report)
    rows: Dict[str, List[Curves]] = {}
    seeds: Dict[str, List[Optional[int]]] = {}
    for row in args.rows:
        title, work_dirs = trainings_of(row)
        if title in rows:
            raise InputError(f'{" ".join(args.rows)}: two rows are called '
                             f'{title}: put another NAME= in front of one')
        rows[title] = [read(work_dir) for work_dir in work_dirs]
        seeds[title] = [seed_of(work_dir) for work_dir in work_dirs]
        for seed in seeds[title]:
            if seed is not None and seeds[title].count(seed) > 1:
                raise InputError(f'{row}: two trainings are of seed {seed}: '
                                 'join those that differ in their seed alone, '
                                 'others are rows of their own')
    figure = draw({
        title: pooled(trainings)
        for title, trainings in rows.items()
    })
    with whole_file(args.out) as temporary:
        figure.savefig(temporary, dpi=150)
    write_json(
        report,
        dict(
            rows=[
                line for title, trainings in rows.items()
                for line in means(title, trainings)
            ],
            seeds=seeds,
            versions=versions(),
            command=command_line(__file__)))
    print(f'picture: {args.out}, means: {report}')


if __name__ == '__main__':
    run(main)
