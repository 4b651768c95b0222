# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import json

import pytest

from dspnet_mm.datasets.coco_format import coco_classes
from dspnet_mm.errors import InputError

CONTENT = dict(
    images=[
        dict(id=number, file_name=f'{number}.png', width=64, height=48)
        for number in (1, 2)
    ],
    annotations=[
        dict(
            id=number,
            image_id=1 + number % 2,
            category_id=7,
            # One of them reaches over the edge, by a little.
            bbox=[41 - number, 4.5, 28, 24],
            area=28 * 24,
            iscrowd=0) for number in range(1, 13)
    ],
    categories=[dict(id=7, name='cat'),
                dict(id=2, name='dog')])


@pytest.fixture
def write(tmp_path):
    """Writes a part's images and annotations, and gives the folder."""
    (tmp_path / 'annotations').mkdir()

    def write_(part, content):
        folder = tmp_path / part
        folder.mkdir(exist_ok=True)
        for image in CONTENT['images']:
            (folder / image['file_name']).touch()
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / 'annotations' / f'{part}.json').write_text(text)
        return str(tmp_path)

    return write_


def changed(name, index=0, **values):
    """The content with other values in one entry; None takes them out."""
    content = copy.deepcopy(CONTENT)
    entry = content[name][index]
    entry.update(values)
    content[name][index] = {
        key: value
        for key, value in entry.items() if value is not None
    }
    return content


def test_classes_are_named_in_their_order(write):
    write('train', CONTENT)
    assert coco_classes(write('test', CONTENT)) == ('cat', 'dog')


CORNERS = copy.deepcopy(CONTENT)
for box in CORNERS['annotations']:
    box['bbox'] = [30, 30, 60, 40]
CROWDS = copy.deepcopy(CONTENT)
for box in CROWDS['annotations']:
    box['iscrowd'] = 1
FAULTS = [
    ('{"images": [', 'test.json is not JSON .*line 1'),
    ('[]', 'lists no images: give annotations in COCO'),
    (dict(CONTENT, categories=[]), 'lists no categories'),
    (dict(CONTENT, annotations=[]), 'lists no annotations'),
    (changed('annotations', area=None), 'has no right area: give each id, '),
    (changed('annotations', 3, iscrowd=None), 'has no right iscrowd'),
    (changed('images', width=None), 'one of its images, has no right width'),
    (changed('categories', id='7'), 'one of its categories, has no right id'),
    (changed('annotations', bbox=[1, 2, 3]), r'\[1, 2, 3\] is not four'),
    (changed('annotations', category_id=3),
     '1 of 12 annotations have a category_id that is not among the categories'
     ', e.g. 3'),
    (changed('annotations', image_id=3), 'image_id that is not among the'),
    (changed('images', file_name='test/1.png'),
     '1 of 2 images are not in .*test, e.g. test/1.png'),
    (changed('images', file_name='../train/1.png'), 'are not in .*test'),
    (CORNERS, r'12 of 12 boxes reach out .*a bbox is \[x, y, width, height'),
    (changed('annotations', id=0), 'an annotation has an id below 1'),
    (changed('annotations', id=2), '2 of its annotations have the id 2: give'),
    (changed('images', id=2), '2 of its images have the id 2'),
    (changed('categories', id=2), '2 of its categories have the id 2'),
    (dict(CONTENT, categories=[dict(id=n, name='dog') for n in (7, 2)]),
     "2 of its categories have the name 'dog'"),
    (changed('annotations', bbox=[1, 2, -3, 4]), '1 of 12 boxes have no area'),
    (changed('annotations', bbox=[1, 2, float('nan'), 4]), 'have no area'),
    (changed('annotations', area=0), 'have no area, e.g. {"id": 1'),
    (CROWDS, 'all boxes are of crowds'),
    (dict(CONTENT, categories=CONTENT['categories'][::-1]),
     'test.json lists the categories dog, cat, and train.json cat, dog'),
    (dict(CONTENT, categories=CONTENT['categories'][:1]), 'both the same'),
]


@pytest.mark.parametrize('content, complaint', FAULTS)
def test_what_would_fail_in_training_is_refused(content, complaint, write):
    write('train', CONTENT)
    folder = write('test', content)
    with pytest.raises(InputError, match=complaint) as raised:
        coco_classes(folder)
    assert '\n' not in str(raised.value)


def test_a_missing_file_is_named(write):
    with pytest.raises(InputError, match='test.json does not exist: set DATA'):
        coco_classes(write('train', CONTENT))
