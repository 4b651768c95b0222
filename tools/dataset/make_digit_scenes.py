#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Write scenes of digits as detection and segmentation data.

The folder gets train/ and test/ with images, annotations/train.json and
test.json in COCO's format with boxes and instance masks, and labels/train/ and
labels/test/ with segmentation maps: 0 is the background, 1 to 10 are the
digits 0 to 9.
"""
import argparse
import json
import os

import cv2
import numpy as np
from pycocotools import mask as coco_mask

import dspnet_mm  # noqa: F401
from dspnet_mm.cli import run
from dspnet_mm.datasets.digit_scenes import SCENE_SIZE, box_of, digit_scenes
from dspnet_mm.files import check_new, whole_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='a folder to make')
    parser.add_argument(
        '--train',
        type=int,
        default=320,
        metavar='N',
        help='training scenes (default: %(default)s)')
    parser.add_argument(
        '--test',
        type=int,
        default=160,
        metavar='N',
        help='test scenes (default: %(default)s)')
    args = parser.parse_args()
    for name in ('train', 'test'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} takes a number of at least 1')
    return args


def write_split(folder: str, split: str, number: int) -> None:
    """Write the scenes of a split.

    Args:
        folder (str): The folder of all splits.
        split (str): 'train' or 'test'.
        number (int): How many scenes.
    """
    places = {
        kind: os.path.join(folder, *parts)
        for kind, parts in (('images', (split, )), ('labels', ('labels',
                                                               split)))
    }
    for place in places.values():
        os.makedirs(place)
    coco = dict(
        images=[],
        annotations=[],
        categories=[
            dict(id=digit + 1, name=str(digit)) for digit in range(10)
        ])
    for index, scene in enumerate(digit_scenes(split, number)):
        name = f'{index:04}.png'
        cv2.imwrite(os.path.join(places['images'], name), scene.image)
        coco['images'].append(
            dict(
                id=index, file_name=name, height=SCENE_SIZE, width=SCENE_SIZE))
        classes = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)
        for label, mask in zip(scene.labels, scene.masks):
            classes[mask] = label + 1
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=index,
                    category_id=label + 1,
                    bbox=box_of(mask),
                    area=int(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(
                        encoded, counts=encoded['counts'].decode('ascii'))))
        cv2.imwrite(os.path.join(places['labels'], name), classes)
    os.makedirs(os.path.join(folder, 'annotations'), exist_ok=True)
    path = os.path.join(folder, 'annotations', f'{split}.json')
    with open(path, 'w') as file:
        json.dump(coco, file)


def main() -> None:
    args = parse_args()
    check_new(args.out)
    with whole_folder(args.out) as folder:
        for split in ('train', 'test'):
            write_split(folder, split, getattr(args, split))
    print(f'{args.train} training and {args.test} test scenes: {args.out}')


if __name__ == '__main__':
    run(main)
