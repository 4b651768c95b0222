#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Download CIFAR-10, written as train/CLASS/*.png and test/CLASS/*.png."""
import argparse
import os
import tempfile
from urllib.error import URLError

from torchvision.datasets import CIFAR10

from dspnet_mm.cli import run
from dspnet_mm.errors import VerificationError
from dspnet_mm.files import check_new, whole_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out',
        default='data/cifar10',
        metavar='DIR',
        help='a folder to make (default: %(default)s)')
    return parser.parse_args()


def write(dataset: CIFAR10, folder: str) -> None:
    """Write each image into the folder of its class."""
    for name in dataset.classes:
        os.makedirs(os.path.join(folder, name))
    for index, (image, label) in enumerate(dataset):
        image.save(
            os.path.join(folder, dataset.classes[label], f'{index:05}.png'))


def main() -> None:
    args = parse_args()
    check_new(args.out)
    with whole_folder(args.out) as folder, \
            tempfile.TemporaryDirectory() as archive:
        for part, train in (('train', True), ('test', False)):
            try:
                # The archive's checksum is looked at, too.
                dataset = CIFAR10(archive, train=train, download=True)
            except (URLError, RuntimeError) as error:
                raise VerificationError(
                    f'{CIFAR10.url} cannot be downloaded ({error}): try '
                    'again; nothing was written')
            write(dataset, os.path.join(folder, part))
            print(f'{len(dataset)} images: {args.out}/{part}', flush=True)


if __name__ == '__main__':
    run(main)
