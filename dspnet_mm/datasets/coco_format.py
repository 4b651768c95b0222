# Copyright (c) The dspnet_mm authors. All rights reserved.
"""A user's boxes in COCO's format, looked at before anything is trained.

MMDetection and pycocotools take what they find, and fail, or mix classes up,
in the middle of a training.
"""
import json
import math
import os
from collections import Counter
from typing import Any, Dict, List, Tuple

from dspnet_mm.errors import InputError
from dspnet_mm.files import is_in

# What both of them read of each entry, and of which type it is.
_ENTRIES = dict(
    images=dict(id=int, file_name=str, width=int, height=int),
    annotations=dict(
        id=int,
        image_id=int,
        category_id=int,
        bbox=list,
        area=(int, float),
        iscrowd=int),
    categories=dict(id=int, name=str))
# Boxes over the edge are those of a sloppy hand, up to these parts: of the
# image's size, and of the boxes.
_OVER_EDGE, _SLOPPY = 0.1, 0.1


def coco_classes(data_root: str) -> Tuple[str, ...]:
    """Check images and boxes, and name the classes.

    Args:
        data_root (str): Holds train/, test/, annotations/train.json and
            annotations/test.json.

    Returns:
        tuple[str]: The classes, in the order of the files.

    Raises:
        InputError: If a file is missing or not as COCO's format has it, a box
            or an image is not what it should be, an id or a name is there
            twice, or both files do not list the same classes in the same
            order.
    """
    train, test = (_classes(data_root, part) for part in ('train', 'test'))
    if train != test:
        raise InputError(
            f'{data_root}/annotations/test.json lists the categories '
            f'{", ".join(test)}, and train.json {", ".join(train)}: give both '
            'the same list in the same order')
    return train


def _classes(data_root: str, part: str) -> Tuple[str, ...]:
    path = os.path.join(data_root, 'annotations', f'{part}.json')
    folder = os.path.join(data_root, part)
    if not os.path.isfile(path):
        raise InputError(f'{path} does not exist: set DATA_ROOT to a folder '
                         'that holds train/, test/, annotations/train.json '
                         'and annotations/test.json')
    content = _read(path)
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    lost = [
        image['file_name'] for image in images.values()
        if not is_in(folder, image['file_name'])
    ]
    if lost:
        raise InputError(f'{path}: {len(lost)} of {len(images)} images are '
                         f'not in {folder}, e.g. {lost[0]}: give file names '
                         'relative to that folder')
    boxes = content['annotations']
    for key, known, what in (('image_id', images, 'images'),
                             ('category_id', categories, 'categories')):
        strays = [box[key] for box in boxes if box[key] not in known]
        if strays:
            raise InputError(f'{path}: {len(strays)} of {len(boxes)} '
                             f'annotations have a {key} that is not among the '
                             f'{what}, e.g. {strays[0]}: list it, or leave '
                             'them out')
    # MMDetection passes these over without a word, and with them images that
    # have no others.
    empty = [box for box in boxes if not _has_area(box)]
    if empty:
        raise InputError(f'{path}: {len(empty)} of {len(boxes)} boxes have no '
                         f'area, e.g. {_short(empty[0])}: a bbox is [x, y, '
                         'width, height] in finite pixels, at least 1 wide '
                         'and high, and area is above 0')
    if all(box['iscrowd'] for box in boxes):
        raise InputError(f'{path}: all boxes are of crowds, of which nothing '
                         'is learned: set iscrowd to 0 where one object is')
    over = [box for box in boxes if _over_edge(box, images[box['image_id']])]
    if len(over) > _SLOPPY * len(boxes):
        raise InputError(f'{path}: {len(over)} of {len(boxes)} boxes reach '
                         f'out of their image, e.g. {over[0]["bbox"]}: a bbox '
                         'is [x, y, width, height], in pixels')
    return tuple(category['name'] for category in content['categories'])


def _read(path: str) -> Dict[str, List[dict]]:
    """The file's lists, each entry with all that is read of it."""
    try:
        with open(path) as file:
            content = json.load(file)
    except ValueError as error:
        raise InputError(f'{path} is not JSON ({error}): write it anew')
    for name, keys in _ENTRIES.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise InputError(f'{path} lists no {name}: give annotations in '
                             f'COCO\'s format, with {", ".join(_ENTRIES)}')
        for entry in entries:
            wrong = [
                key for key, type_ in keys.items()
                if not isinstance(entry, dict)
                or not isinstance(entry.get(key), type_)
            ]
            if wrong:
                raise InputError(
                    f'{path}: {_short(entry)}, one of its {name}, has no '
                    f'right {wrong[0]}: give each {", ".join(keys)}')
    for name, key in (*((name, 'id')
                        for name in _ENTRIES), ('categories', 'name')):
        (value, number), = Counter(entry[key]
                                   for entry in content[name]).most_common(1)
        if number > 1:
            raise InputError(f'{path}: {number} of its {name} have the {key} '
                             f'{value!r}: give each its own')
    if min(box['id'] for box in content['annotations']) < 1:
        # By pycocotools, what is matched with the id 0 is matched with none.
        raise InputError(f'{path}: an annotation has an id below 1, which '
                         'evaluation takes for none: count them from 1')
    for box in content['annotations']:
        if len(box['bbox']) != 4 or not all(
                isinstance(value, (int, float)) for value in box['bbox']):
            raise InputError(f'{path}: the bbox {box["bbox"]} is not four '
                             'numbers: give [x, y, width, height], in pixels')
    return content


def _short(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 100 else f'{text[:97]}...'


def _has_area(box: dict) -> bool:
    width, height = box['bbox'][2:]
    return all(map(math.isfinite, box['bbox'])) \
        and min(width, height) >= 1 and 0 < box['area'] < math.inf


def _over_edge(box: dict, image: dict) -> bool:
    x, y, width, height = box['bbox']
    return any(
        begin < -_OVER_EDGE * size or begin + length > (1 + _OVER_EDGE) * size
        for begin, length, size in ((x, width, image['width']),
                                    (y, height, image['height'])))
