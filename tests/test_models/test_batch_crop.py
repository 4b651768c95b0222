# Copyright (c) The dspnet_mm authors. All rights reserved.
import mmcv
import numpy as np
import pytest
import torch
from mmselfsup.datasets import RandomResizedCrop

from dspnet_mm import InputError
from dspnet_mm.models import BatchRandomResizedCrop
from dspnet_mm.models.batch_crop import resized_crops
from dspnet_mm.randomness import seeded


def boxes_of_mmselfsup(number, image_size, scale, ratio):
    """Top, left, height and width of crops, drawn one at a time."""
    image = np.zeros(image_size)
    crops = np.array([
        RandomResizedCrop.get_params(image, scale, ratio)
        for _ in range(number)
    ])
    crops[:, 2:] -= crops[:, :2] - 1
    return crops


@pytest.mark.parametrize('image_size, scale, ratio', [
    ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
    ((20, 33), (0.08, 1.0), (3 / 4, 4 / 3)),
    ((48, 40), (0.9, 1.0), (0.7, 0.8)),
])
def test_crops_are_distributed_as_mmselfsups(image_size, scale, ratio):
    """Means and second moments, within five standard errors."""
    number = 20000
    with seeded(0):
        ours = BatchRandomResizedCrop((8, 8), scale,
                                      ratio).draw(number, *image_size).numpy()
        theirs = boxes_of_mmselfsup(number, image_size, scale, ratio)

    def quantities(boxes):
        top, left, height, width = boxes.T
        whole = (height == image_size[0], width == image_size[1])
        return np.stack([
            *boxes.T, height * width, width / height, top**2, left**2,
            height**2, width**2, top * height, left * width, *whole
        ])

    differences = quantities(ours).mean(1) - quantities(theirs).mean(1)
    errors = quantities(theirs).std(1) * np.sqrt(2 / number)
    assert (np.abs(differences) <= 5 * errors).all(), differences / errors
    # Of the first, some have the whole height of the image.
    assert (ours[:, 2] == image_size[0]).any()


@pytest.mark.parametrize('image_size', [(10, 100), (100, 10), (64, 64)])
def test_where_no_crop_fits_it_is_the_middle_as_mmselfsups(image_size):
    scale, ratio = (1.0, 1.0), (1.4, 1.5)
    theirs = boxes_of_mmselfsup(1, image_size, scale, ratio)
    ours = BatchRandomResizedCrop((8, 8), scale, ratio).draw(3, *image_size)
    assert (ours.numpy() == theirs).all()


@pytest.mark.parametrize('size', [(32, 32), (16, 24), (80, 70)])
def test_crops_are_resized_as_by_opencv(size):
    with seeded(0):
        images = torch.rand(200, 3, 40, 48)
        boxes = BatchRandomResizedCrop(size, scale=(0.01, 1)).draw(200, 40, 48)
    crops = resized_crops(images, boxes, size).permute(0, 2, 3, 1).numpy()
    for image, crop, box in zip(images, crops, boxes.tolist()):
        top, left, height, width = box
        part = image[:, top:top + height, left:left + width]
        expected = mmcv.imresize(part.permute(1, 2, 0).numpy(), size[::-1])
        assert np.allclose(crop, expected, atol=1e-5)


def test_each_image_of_a_batch_has_a_crop_of_its_own_by_the_seed():
    crop = BatchRandomResizedCrop((8, 8))
    images = torch.rand(1, 3, 32, 32).expand(16, -1, -1, -1)
    with seeded(0):
        first = crop(images)
    with seeded(0):
        assert torch.equal(crop(images), first)
    assert first.shape == (16, 3, 8, 8)
    assert torch.unique(first.flatten(1), dim=0).shape[0] == 16


@pytest.mark.parametrize('arguments, complaint', [
    (dict(size=(0, 8)), r'size=\(0, 8\)'),
    (dict(size=(8, 8), scale=(0.5, 0.2)), r'scale=\(0.5, 0.2\)'),
    (dict(size=(8, 8), ratio=(0, 1)), r'ratio=\(0, 1\)'),
])
def test_what_is_out_of_range_is_refused(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        BatchRandomResizedCrop(**arguments)
