# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Iterator, List, NamedTuple

import cv2
import numpy as np

from .digits import EmbeddedDigits

SCENE_SIZE = 64
# All our choice. A digit's height and width in pixels; how many are in a
# scene; how bright its background gets; which ink belongs to the mask.
_SIDES = (12, 20)
_NUMBERS = (3, 6)
_BACKGROUND = 80
_INK = 96
# A scene that is nearly full may have no room for another one.
_TRIES = 20


class Scene(NamedTuple):
    """Digits on a noisy background, and where they are.

    Args:
        image (ndarray): uint8, shape (64, 64, 3), three equal channels.
        labels (list[int]): Which digits, from 0 to 9.
        masks (list[ndarray]): bool, shape (64, 64), the ink of each. They do
            not overlap.
    """
    image: np.ndarray
    labels: List[int]
    masks: List[np.ndarray]


def box_of(mask: np.ndarray) -> List[int]:
    """The left, top, width and height in pixels of what a mask covers."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1)
    ]


def digit_scenes(split: str, number: int) -> Iterator[Scene]:
    """Scenes of several digits each, always the same ones.

    Scans of :class:`EmbeddedDigits` are enlarged and pasted, so that class,
    box and mask are known by construction. No digit of the test split is in a
    scene of the training split.

    Args:
        split (str): 'train' or 'test'.
        number (int): How many scenes, at least 1.

    Yields:
        Scene: One after another.

    Raises:
        InputError: If there is no such split.
    """
    digits = EmbeddedDigits(split=split, pipeline=[])
    generator = np.random.default_rng(['train', 'test'].index(split))
    for _ in range(number):
        yield _scene(digits, generator)


def _scene(digits: EmbeddedDigits, generator: np.random.Generator) -> Scene:
    shape = (SCENE_SIZE, SCENE_SIZE)
    canvas = generator.integers(0, _BACKGROUND, shape, np.uint8)
    taken = np.zeros(shape, bool)
    labels, masks = [], []
    for _ in range(generator.integers(*_NUMBERS, endpoint=True)):
        chosen = digits[int(generator.integers(len(digits)))]
        height, width = generator.integers(*_SIDES, endpoint=True, size=2)
        ink = cv2.resize(chosen['img'][..., 0], (int(width), int(height)))
        for _ in range(_TRIES):
            top = generator.integers(SCENE_SIZE - height, endpoint=True)
            left = generator.integers(SCENE_SIZE - width, endpoint=True)
            place = np.s_[top:top + height, left:left + width]
            if not taken[place].any():
                break
        else:
            continue
        taken[place] = True
        canvas[place] = np.maximum(canvas[place], ink)
        mask = np.zeros(shape, bool)
        mask[place] = ink >= _INK
        labels.append(int(chosen['gt_label']))
        masks.append(mask)
    return Scene(canvas[..., None].repeat(3, axis=-1), labels, masks)
