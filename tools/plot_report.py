#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Draw accuracy against FLOPs, one line per method of a report."""
import argparse
import os

from matplotlib.figure import Figure

from dspnet_mm.cli import run
from dspnet_mm.evaluation.report import METHODS, read_report
from dspnet_mm.files import whole_file
from dspnet_mm.plots import flops_axis


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('report', help='the report.json of evaluate.py')
    parser.add_argument(
        '--out',
        metavar='STEM',
        help='write STEM.png and STEM.svg (default: beside the report)')
    return parser.parse_args()


def draw(rows: list) -> Figure:
    """One panel for each accuracy."""
    figure = Figure(figsize=(9, 4), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    methods = list(dict.fromkeys(row['method'] for row in rows))
    for panel, (key, title) in zip(panels, (('knn', 'kNN'),
                                            ('linear', 'linear probe'))):
        for index, method in enumerate(methods):
            points = sorted((row['flops'], 100 * row[key], row['subnet'])
                            for row in rows if row['method'] == method)
            flops, accuracies, names = zip(*points)
            style = dict(color=f'C{index}', label=METHODS.get(method, method))
            if flops[-1] > 0:
                panel.plot(flops, accuracies, marker='o', **style)
            else:
                # Without a network there are no FLOPs to draw it at.
                panel.axhline(accuracies[0], linestyle='--', **style)
            if index == 0:
                # The other methods' networks lie at the same FLOPs.
                for point in zip(flops, accuracies, names):
                    panel.annotate(
                        point[2],
                        point[:2],
                        xytext=(0, 8),
                        textcoords='offset points',
                        ha='center',
                        bbox=dict(
                            facecolor='white',
                            edgecolor='none',
                            alpha=0.8,
                            pad=1))
        flops_axis(panel)
        panel.margins(0.12)
        panel.set_title(title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('accuracy (%)')
    panels[0].legend()
    return figure


def main() -> None:
    args = parse_args()
    figure = draw(read_report(args.report)['rows'])
    stem = args.out or os.path.splitext(args.report)[0]
    for suffix in ('png', 'svg'):
        with whole_file(f'{stem}.{suffix}') as temporary:
            # Fixed metadata, so that equal reports give equal files.
            figure.savefig(
                temporary,
                format=suffix,
                dpi=150,
                metadata=dict(Date=None) if suffix == 'svg' else None)
        print(f'picture: {stem}.{suffix}')


if __name__ == '__main__':
    run(main)
