#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Make a set of images of four worlds, and tasks in each, for SDR.

Digits, vehicles and animals of CIFAR-10, and blood cells of BCCD, all at 32
pixels. The images to pre-train on are as many of each world and not labelled;
the tasks are of other images of these worlds, each of its own.
"""
import argparse
import hashlib
import os
from collections import Counter
from itertools import chain, cycle
from typing import Dict, Iterator, List, NamedTuple
from xml.etree import ElementTree

import numpy as np
from mmcls.datasets import CustomDataset
from PIL import Image

import dspnet_mm  # noqa: F401
from dspnet_mm.cli import add_options, command_line, markdown_table, run
from dspnet_mm.datasets import EmbeddedDigits, UnreadableImage
from dspnet_mm.datasets.image_folder import EXTENSIONS
from dspnet_mm.errors import InputError
from dspnet_mm.files import check_new, is_in, whole_folder, write_json
from dspnet_mm.versions import versions

_SIZE = 32
# Of a kind, as a multiple of the rarest kind.
_MOST_CELLS = 3
# Around a cell's box, as a part of its longer edge.
_MARGIN = 0.1
VEHICLES = ('airplane', 'automobile', 'ship', 'truck')
ANIMALS = ('bird', 'cat', 'deer', 'dog', 'frog', 'horse')
CELLS = ('RBC', 'WBC', 'Platelets')
DIGITS = tuple(str(digit) for digit in range(10))
# Some are of all classes of a world, some of few that are alike, and one is
# of two worlds.
TASKS = dict(
    digits=DIGITS,
    vehicles=VEHICLES,
    animals=ANIMALS,
    cells=CELLS,
    road=('automobile', 'truck'),
    pets=('cat', 'dog'),
    flying=('airplane', 'bird'),
)
# Of how many tasks a class is.
_USES = Counter(chain(*TASKS.values()))


class Picture(NamedTuple):
    """An image that is not loaded yet.

    Args:
        path (str): Its file, or '' where there is none.
        pixels (ndarray, optional): Itself, uint8, of shape (H, W, 3).
        box (tuple, optional): Which part of it: left, top, right, bottom.
    """
    path: str = ''
    pixels: np.ndarray = None
    box: tuple = None

    def load(self) -> Image.Image:
        """The image at the size of all.

        Raises:
            UnreadableImage: If its file cannot be decoded.
        """
        try:
            image = Image.open(self.path) if self.path else Image.fromarray(
                self.pixels)
            image = image.convert('RGB')
        except Exception as error:
            # The system's errors name the file, PIL's do not.
            if getattr(error, 'filename', None):
                raise
            reason = str(error).strip().split('\n')[0]
            raise UnreadableImage(self.path, reason or type(error).__name__)
        if self.box:
            image = image.crop(self.box)
        return image.resize((_SIZE, _SIZE), Image.BICUBIC)


Labelled = Dict[str, List[Picture]]


class World(NamedTuple):
    """Images by class, some for pre-training and others for all tasks."""
    pretraining: Labelled
    train: Labelled
    test: Labelled


def divided(pictures: List[Picture], parts: List[int],
            generator: np.random.Generator) -> Iterator[List[Picture]]:
    """Divide pictures at random into parts of these sizes."""
    order = generator.permutation(len(pictures))
    start = 0
    for part in parts:
        yield [pictures[i] for i in order[start:start + part]]
        start += part


def digits(args: argparse.Namespace, generator: np.random.Generator) -> World:
    """scikit-learn's: at most a fourth of each class trains, or tests."""
    world = World({}, {}, {})
    items = [
        dataset.get_data_info(i)
        for dataset in map(EmbeddedDigits, ('train', 'test'))
        for i in range(len(dataset))
    ]
    for digit in DIGITS:
        pictures = [
            Picture(pixels=item['img']) for item in items
            if item['gt_label'] == int(digit)
        ]
        few = len(pictures) // 4
        train, test = min(args.train, few), min(args.test, few)
        (world.train[digit],
         world.test[digit], world.pretraining[digit]) = divided(
             pictures, [train, test, len(pictures) - train - test], generator)
    return world


def cifar10(folder: str, classes: tuple, args: argparse.Namespace,
            generator: np.random.Generator) -> World:
    """CIFAR-10's, as a folder per class: its test images test the tasks."""
    world = World({}, {}, {})
    for split in ('train', 'test'):
        for name, pictures in pictures_of(folder, split, classes).items():
            number = getattr(args, split) * _USES[name]
            needed = number + (split == 'train')
            if len(pictures) < needed:
                raise InputError(
                    f'{folder} has {len(pictures)} {split} images of {name}, '
                    f'at least {needed} are needed for {_USES[name]} task(s)'
                    f'{" and to pre-train on" if split == "train" else ""}: '
                    f'give a smaller --{split}')
            getattr(world, split)[name], rest = divided(
                pictures, [number, len(pictures) - number], generator)
            if split == 'train':
                world.pretraining[name] = rest
    return world


def pictures_of(folder: str, split: str, classes: tuple) -> Labelled:
    """CIFAR-10's training or test images of some classes."""
    path = os.path.join(folder, split)
    if not os.path.isdir(path):
        raise InputError(f'--cifar10 {folder} has no {split}/: give what '
                         'tools/dataset/download_cifar10.py writes')
    dataset = CustomDataset(data_prefix=path, extensions=EXTENSIONS)
    missing = {*classes} - {*dataset.CLASSES}
    if missing:
        raise InputError(f'{path} has no {", ".join(sorted(missing))}: '
                         'give what tools/dataset/download_cifar10.py writes')
    labels = dataset.get_gt_labels()
    return {
        name: [
            Picture(dataset.get_data_info(i)['img_path'])
            for i in np.flatnonzero(labels == dataset.CLASSES.index(name))
        ]
        for name in classes
    }


def cells(args: argparse.Namespace, generator: np.random.Generator) -> World:
    """BCCD's boxes: training images to pre-train, others for the task.

    Of its test images every second one tests the task, the others train it.
    Most cells are red: of each kind there are at most three times as many as
    of the rarest, lest a constant answer be a good one.
    """
    world = World(*({name: [] for name in CELLS} for _ in range(3)))
    for split, parts in (('trainval', [world.pretraining]),
                         ('test', [world.train, world.test])):
        path = os.path.join(args.bccd, 'ImageSets', 'Main', f'{split}.txt')
        if not os.path.isfile(path):
            raise InputError(f'{path} is no file: give as --bccd the folder '
                             'of BCCD that holds JPEGImages, Annotations and '
                             'ImageSets')
        with open(path) as file:
            for name, part in zip(file.read().split(), cycle(parts)):
                for label, picture in boxes(args.bccd, name):
                    part[label].append(picture)
    for part, most in ((world.train, args.train), (world.test, args.test)):
        most = min(most, _MOST_CELLS * min(map(len, part.values())))
        for label, pictures in part.items():
            part[label], = divided(pictures, [min(most, len(pictures))],
                                   generator)
    return world


def boxes(folder: str, name: str) -> Iterator[tuple]:
    """The cells of an image, with a square around each box."""
    annotation, image = (
        os.path.join(folder, *parts)
        for parts in (('Annotations', f'{name}.xml'), ('JPEGImages',
                                                       f'{name}.jpg')))
    for path in (annotation, image):
        if not is_in(folder, os.path.relpath(path, folder)):
            raise InputError(f'{path} is not in {folder}: give BCCD as it is')
    try:
        objects = [(found.find('name').text, [
            int(found.find(f'bndbox/{key}').text)
            for key in ('xmin', 'ymin', 'xmax', 'ymax')
        ]) for found in ElementTree.parse(annotation).iter('object')]
    except (ElementTree.ParseError, AttributeError, TypeError,
            ValueError) as error:
        raise InputError(f'{annotation} cannot be read ({error}): give BCCD '
                         'as it is')
    for label, (left, top, right, bottom) in objects:
        if label not in CELLS:
            raise InputError(f'{annotation} has the cell {label}: allowed are '
                             f'{", ".join(CELLS)}')
        half = (0.5 + _MARGIN) * max(right - left, bottom - top)
        # Two boxes have no area.
        if min(right - left, bottom - top) < 4:
            continue
        x, y = (left + right) / 2, (top + bottom) / 2
        square = tuple(
            round(value) for value in (x - half, y - half, x + half, y + half))
        yield label, Picture(image, box=square)


class Writer:
    """Writes images, and says which they were.

    Args:
        folder (str): Where they go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._digest = hashlib.sha256()

    def save(self, pictures: List[Picture], *parts: str) -> None:
        """Write images into a folder in the folder, numbered."""
        os.makedirs(os.path.join(self.folder, *parts))
        for number, picture in enumerate(pictures):
            path = '/'.join([*parts, f'{number:05d}.png'])
            image = picture.load()
            image.save(os.path.join(self.folder, path))
            self._digest.update(path.encode() + image.tobytes())

    @property
    def sha256(self) -> str:
        """Of all paths and pixels so far, however files encode them."""
        return self._digest.hexdigest()


def balanced(world: World, number: int,
             generator: np.random.Generator) -> List[Picture]:
    """So many images to pre-train on, of each class alike while they last."""
    chosen: List[Picture] = []
    by_size = sorted(world.pretraining.values(), key=len)
    for place, pictures in enumerate(by_size):
        share = (number - len(chosen)) // (len(by_size) - place)
        chosen += next(divided(pictures, [share], generator))
    if len(chosen) < number:
        raise InputError(f'there are {len(chosen)} images of a world: '
                         f'--images {number} are too many')
    return chosen


def parts_of(pictures: List[Picture], label: str) -> Iterator[List[Picture]]:
    """Equal parts of a class, for each task that has it one."""
    size = len(pictures) // _USES[label]
    return (pictures[size * place:size * (place + 1)]
            for place in range(_USES[label]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--cifar10',
        required=True,
        metavar='FOLDER',
        help='CIFAR-10 as tools/dataset/download_cifar10.py writes it')
    parser.add_argument(
        '--bccd',
        required=True,
        metavar='FOLDER',
        help='BCCD, with JPEGImages, Annotations and ImageSets')
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='where to write')
    parser.add_argument(
        '--images',
        type=int,
        default=800,
        metavar='N',
        help='images of each world to pre-train on (default: %(default)s)')
    parser.add_argument(
        '--train',
        type=int,
        default=500,
        metavar='N',
        help="a task's training images of each class, at most "
        '(default: %(default)s)')
    parser.add_argument(
        '--test',
        type=int,
        default=500,
        metavar='N',
        help="a task's test images of each class, at most "
        '(default: %(default)s)')
    add_options(parser, 'seed')
    args = parser.parse_args()
    if min(args.images, args.train, args.test) < 1:
        parser.error('--images, --train and --test take a number of at least '
                     '1')
    return args


def main() -> None:
    args = parse_args()
    check_new(args.out)
    generator = np.random.default_rng(args.seed)
    worlds = dict(
        digits=digits(args, generator),
        vehicles=cifar10(args.cifar10, VEHICLES, args, generator),
        animals=cifar10(args.cifar10, ANIMALS, args, generator),
        cells=cells(args, generator))
    with whole_folder(args.out) as folder:
        writer = Writer(folder)
        for name, world in worlds.items():
            writer.save(
                balanced(world, args.images, generator), 'images', name)
        counts: Dict[str, List[int]] = {task: [] for task in TASKS}
        for split in ('train', 'test'):
            parts = {
                label: parts_of(pictures, label)
                for world in worlds.values()
                for label, pictures in getattr(world, split).items()
            }
            for task, classes in TASKS.items():
                chosen = {label: next(parts[label]) for label in classes}
                for label, pictures in chosen.items():
                    writer.save(pictures, 'tasks', task, split, label)
                counts[task].append(sum(map(len, chosen.values())))
        write_json(
            os.path.join(folder, 'mixture.json'),
            dict(
                images=args.images,
                tasks=counts,
                sha256=writer.sha256,
                seeds=[args.seed],
                versions=versions(),
                command=command_line(__file__)))
    print(f'{len(worlds) * args.images} images of {", ".join(worlds)} to '
          f'pre-train on: {args.out}/images')
    print(
        markdown_table(('task', 'classes', 'training', 'test'),
                       [(task, ' '.join(classes), *map(str, counts[task]))
                        for task, classes in TASKS.items()]))


if __name__ == '__main__':
    run(main)
