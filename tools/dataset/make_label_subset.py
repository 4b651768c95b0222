#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Draw a part of the labels, class by class, for semi-supervised training."""
import argparse
import os

from mmcls.datasets import CustomDataset

import dspnet_mm  # noqa: F401
from dspnet_mm.cli import add_options, run
from dspnet_mm.datasets.image_folder import EXTENSIONS
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import pick_balanced
from dspnet_mm.files import check_writable, whole_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='holds the images, as CLASS/*')
    parser.add_argument(
        '--percent',
        type=float,
        required=True,
        metavar='P',
        help='which part of each class, at least one image')
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='the list to write: on each line an image in the folder and the '
        'index of its class')
    add_options(parser, 'seed', 'force')
    args = parser.parse_args()
    if not 0 < args.percent <= 100:
        parser.error(f'--percent {args.percent:g} is not allowed: give more '
                     'than 0 and at most 100')
    return args


def main() -> None:
    args = parse_args()
    check_writable(args.out)
    if os.path.exists(args.out) and not args.force:
        raise InputError(f'{args.out} exists: give another name, or --force '
                         'to replace it')
    if not os.path.isdir(args.folder):
        raise InputError(f'{args.folder} is not a folder: give the one that '
                         'holds the images, as CLASS/*')
    for entry in sorted(os.scandir(args.folder), key=lambda each: each.name):
        # Such as train/ and test/, which are no classes.
        if entry.is_dir() and not any(inner.is_file()
                                      for inner in os.scandir(entry.path)):
            raise InputError(f'{entry.path} holds no image: give the folder '
                             'that holds the images, as CLASS/*')
    try:
        dataset = CustomDataset(data_prefix=args.folder, extensions=EXTENSIONS)
    except RuntimeError as error:
        # So it says that there are no images, or not in folders.
        raise InputError(f'{args.folder} cannot be used ({error}): images '
                         f'must lie in {args.folder}/CLASS/')
    labels = dataset.get_gt_labels()
    chosen = pick_balanced(labels, args.percent / 100, args.seed)
    with whole_file(args.out) as temporary, open(temporary, 'w') as file:
        for index in chosen:
            path = dataset.get_data_info(index)['img_path']
            name = os.path.relpath(path, args.folder)
            file.write(f'{name} {labels[index]}\n')
    print(f'{len(chosen)} of {len(dataset)} images, of '
          f'{len(dataset.CLASSES)} classes: {args.out}')


if __name__ == '__main__':
    run(main)
