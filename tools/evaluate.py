#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Evaluate exported networks: kNN and linear probe on frozen features."""
import argparse

from dspnet_mm.cli import add_options, command_line, run
from dspnet_mm.evaluation.report import BASELINES, PROBES, evaluate
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.tables import ACCURACIES, NETWORK, rows_table
from dspnet_mm.versions import versions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'networks',
        nargs='+',
        help='folders that slim_export.py wrote into, and .pth files')
    parser.add_argument(
        '--data',
        required=True,
        help='"digits" (embedded), or a folder that holds train/CLASS/ and '
        'test/CLASS/ (or val/CLASS/) with images')
    parser.add_argument(
        '--knn-k',
        type=int,
        default=20,
        metavar='K',
        help='number of neighbours (default: %(default)s)')
    parser.add_argument(
        '--baselines',
        nargs='+',
        choices=BASELINES,
        default=[],
        help="evaluate also each network's randomly initialised twin, and "
        'the raw pixels')
    parser.add_argument(
        '--probe',
        nargs='+',
        choices=PROBES,
        default=[],
        help='train linear classifiers of all networks jointly, too: one '
        'layer, sliced for smaller networks, or one for each')
    add_options(parser, 'seed', 'device')
    parser.add_argument(
        '--out', metavar='REPORT.json', help='write the results, too')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.out:
        check_writable(args.out)
    rows = evaluate(
        args.networks,
        args.data,
        k=args.knn_k,
        baselines=args.baselines,
        seed=args.seed,
        device=args.device,
        probes=args.probe)
    print(rows_table(rows, [*NETWORK, *ACCURACIES]))
    if args.out:
        report = dict(
            rows=rows,
            seeds=[args.seed],
            versions=versions(),
            command=command_line(__file__))
        write_json(args.out, report)
        print(f'report: {args.out}')


if __name__ == '__main__':
    run(main)
