#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Slim a supernet to plain networks, verified and ready to fine-tune."""
import argparse
import os
import re
from fractions import Fraction

import dspnet_mm  # noqa: F401
from dspnet_mm.checkpoint import check_exists
from dspnet_mm.cli import add_options, run
from dspnet_mm.slimming import (CALIBRATION_IMAGES, build_family_of,
                                export_subnets, load_config)
from dspnet_mm.tables import NETWORK, rows_table


def budget(text: str) -> int:
    """A number such as 4000000, 4M or 0.3G."""
    match = re.fullmatch(r'(\d+\.?\d*)([KMG]?)', text, re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a budget: give a number, e.g. 4000000, 300M '
            'or 1.5G')
    unit = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9}[match[2].upper()]
    # Not by a float, which may be a little less.
    return int(Fraction(match[1]) * unit)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the training config')
    parser.add_argument('checkpoint', help='the training checkpoint')
    parser.add_argument(
        '--out-dir', required=True, help='the folder to write into')
    which = parser.add_argument_group('which sub-networks (one of these)')
    which.add_argument(
        '--subnet', nargs='+', metavar='NAME', help='desired networks')
    which.add_argument(
        '--all',
        action='store_true',
        help='all desired networks, and the unified network of SDR')
    which.add_argument(
        '--width',
        nargs='+',
        type=float,
        metavar='W',
        help='with --depth or alone: width of all stages or of each, as a '
        "fraction of the supernet's")
    which.add_argument(
        '--depth',
        nargs='+',
        type=int,
        metavar='D',
        help='with --width or alone: depth of all stages or of each, in '
        'blocks')
    which.add_argument(
        '--max-flops',
        type=budget,
        metavar='N',
        help='the largest desired network of at most so many FLOPs, e.g. '
        '300M; where none fits, the largest member of the family')
    which.add_argument(
        '--max-params',
        type=budget,
        metavar='N',
        help='the same for parameters, e.g. 4M')
    parser.add_argument(
        '--calib-images',
        type=int,
        default=CALIBRATION_IMAGES,
        metavar='N',
        help='training images for BN recalibration (default: %(default)s)')
    parser.add_argument(
        '--onnx',
        action='append_const',
        const='onnx',
        dest='further_files',
        default=[],
        help='write ONNX files, too')
    parser.add_argument(
        '--format',
        nargs='+',
        choices=('torchvision', 'timm'),
        action='extend',
        dest='further_files',
        default=[],
        help="write weights that a library's own ResNet loads, too")
    parser.add_argument(
        '--safetensors',
        action='append_const',
        const='safetensors',
        dest='further_files',
        default=[],
        help='write safetensors files, too')
    add_options(parser, 'seed', 'device', 'force', 'cfg-options')
    args = parser.parse_args()
    asked = (args.subnet, args.all or None, args.width
             or args.depth, args.max_flops, args.max_params)
    if len([value for value in asked if value is not None]) != 1:
        parser.error('say which sub-networks: exactly one of --subnet, --all, '
                     '--width with --depth, --max-flops and --max-params')
    return args


def select(family: dspnet_mm.ResNetFamily, args: argparse.Namespace) -> dict:
    """The sub-networks that the arguments ask for, by file name."""
    if args.all:
        return family.exported
    if args.subnet:
        return {name: family[name] for name in args.subnet}
    if args.width or args.depth:
        subnet = family.subnet(args.width or 1.0, args.depth)
    else:
        budgets = dict(max_flops=args.max_flops, max_params=args.max_params)
        subnet = family.largest_within(**budgets)
        largest = family.largest_within(**budgets, desired_first=False)
        cost = family.params if args.max_flops is None else family.flops
        if cost(largest) > cost(subnet):
            print(f'taking the desired network {family.name_of(subnet)} '
                  f'({family.flops(subnet):,} FLOPs, '
                  f'{family.params(subnet):,} parameters); the largest '
                  'member of the family within the budget is no desired '
                  f'network: --width {" ".join(map(str, largest.widths))} '
                  f'--depth {" ".join(map(str, largest.depths))} '
                  f'({family.flops(largest):,} FLOPs, '
                  f'{family.params(largest):,} parameters)')
    return {family.name_of(subnet): subnet}


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    check_exists(args.checkpoint)
    subnets = select(build_family_of(cfg), args)
    written = export_subnets(
        cfg,
        args.checkpoint,
        subnets,
        args.out_dir,
        num_calibration=args.calib_images,
        seed=args.seed,
        further_files=[*dict.fromkeys(args.further_files)],
        device=args.device,
        force=args.force)
    rows = [
        dict(
            entry,
            subnet=entry['name'],
            file=os.path.join(args.out_dir, f'{entry["name"]}.pth'))
        for entry in written
    ]
    print(
        rows_table(rows, [
            *NETWORK,
            ('max_abs_difference', 'largest difference', '{:.1e}'.format),
            ('file', 'file', str)
        ]))


if __name__ == '__main__':
    run(main)
