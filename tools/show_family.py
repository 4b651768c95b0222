#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Show the desired networks of a config, what they cost, and the space."""
import argparse

from dspnet_mm.cli import add_options, command_line, run
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.slimming import build_family_of, load_config, plain_backbone_cfg
from dspnet_mm.tables import NETWORK, rows_table
from dspnet_mm.versions import versions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a training config')
    add_options(parser, 'cfg-options')
    parser.add_argument('--out', metavar='FILE.json', help='write it, too')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.out:
        check_writable(args.out)
    family = build_family_of(load_config(args.config, args.cfg_options))
    rows = [
        dict(
            subnet=name,
            widths=list(subnet.widths),
            depths=list(subnet.depths),
            params=family.params(subnet),
            flops=family.flops(subnet),
            exported_as=plain_backbone_cfg(family, subnet)['type'])
        for name, subnet in family.desired.items()
    ]
    print(rows_table(rows, [*NETWORK, ('exported_as', 'exported as', str)]))
    print(f'FLOPs (multiply-adds) are those of one image of '
          f'{family.input_size}x{family.input_size} pixels.')
    print(f'The space: {family.describe_space()}.')
    if args.out:
        write_json(
            args.out,
            dict(
                rows=rows,
                input_size=family.input_size,
                versions=versions(),
                command=command_line(__file__)))


if __name__ == '__main__':
    run(main)
