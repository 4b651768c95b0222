# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Images as evaluation sees them: whole, in order, normalised."""
import copy
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.model import ImgDataPreprocessor
from mmselfsup.registry import DATASETS
from torch.utils.data import DataLoader, Dataset, Subset

from dspnet_mm.datasets import UnreadableImage
from dspnet_mm.errors import InputError

# About as many pixels in a batch as 1,024 images of 32x32 have: enough to be
# fast, few enough for a ResNet-50's activations to fit into 8 GiB.
_PIXELS_PER_BATCH = 1024 * 32 * 32


@dataclass(frozen=True)
class ImageFormat:
    """What a network expects of its input.

    Args:
        input_size (int): Height and width in pixels.
        mean (tuple[float], optional): Mean of each channel, in the order in
            which the network takes them. Defaults to None, no normalisation.
        std (tuple[float], optional): Standard deviation of each channel.
            Defaults to None.
        bgr_to_rgb (bool): Whether the network takes RGB (images are loaded
            as BGR). Defaults to False.
    """
    input_size: int
    mean: Optional[Tuple[float, ...]] = None
    std: Optional[Tuple[float, ...]] = None
    bgr_to_rgb: bool = False

    @classmethod
    def from_config(cls, data_preprocessor: Optional[dict],
                    input_size: int) -> 'ImageFormat':
        """Take it from a model's config.

        Args:
            data_preprocessor (dict, optional): The model's.
            input_size (int): Height and width in pixels.

        Returns:
            ImageFormat: The format.
        """
        cfg = data_preprocessor or {}
        # MMEngine's other name for the same exchange of channels.
        exchanged = cfg.get('bgr_to_rgb') or cfg.get('rgb_to_bgr')
        return cls(input_size,
                   tuple(cfg['mean']) if cfg.get('mean') else None,
                   tuple(cfg['std']) if cfg.get('std') else None,
                   bool(exchanged))

    @property
    def batch_size(self) -> int:
        """How many images make a batch."""
        return max(1, _PIXELS_PER_BATCH // self.input_size**2)

    def normalise(self, images: np.ndarray) -> torch.Tensor:
        """From loaded images to a network's input.

        Args:
            images (ndarray): uint8, shape (N, H, W, 3), BGR.

        Returns:
            Tensor: float32, shape (N, 3, H, W).
        """
        preprocessor = ImgDataPreprocessor(
            mean=self.mean, std=self.std, bgr_to_rgb=self.bgr_to_rgb)
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return preprocessor(dict(inputs=inputs))['inputs']


def evaluation_dataset(cfg: dict, input_size: int) -> BaseDataset:
    """Build a data set whose images are whole and of one size.

    The shorter edge is resized and the centre cropped, without any random
    transform (our choice).

    Args:
        cfg (dict): Config of a data set of MMSelfSup; its pipeline is
            replaced.
        input_size (int): Height and width in pixels.

    Returns:
        BaseDataset: Its items have ``img``, an uint8 array of shape
        (input_size, input_size, 3), and ``gt_label`` where there are labels.

    Raises:
        InputError: If it holds no images, or is put together from others.
    """
    cfg = copy.deepcopy(dict(cfg))
    cfg['pipeline'] = []
    try:
        dataset = DATASETS.build(cfg)
    except (RuntimeError, TypeError) as error:
        # So MMClassification says that class folders hold no images; and
        # what wraps other data sets has no pipeline.
        raise InputError(f'the data set cannot be used ({error})')
    pipeline = [
        dict(type='mmcls.ResizeEdge', scale=input_size, edge='short'),
        dict(type='mmcls.CenterCrop', crop_size=input_size)
    ]
    if 'img' not in dataset.get_data_info(0):
        pipeline.insert(0, dict(type='mmselfsup.LoadImage'))
    dataset.pipeline = Compose(pipeline)
    return dataset


def pick(dataset: BaseDataset, number: int, seed: int) -> List[int]:
    """Pick images at random, the same ones for the same seed.

    Args:
        dataset (BaseDataset): The data set.
        number (int): How many, at least 1; all, where there are fewer.
        seed (int): The seed, at least 0.

    Returns:
        list[int]: Their indices, in increasing order.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))
    return sorted(order[:number].tolist())


def pick_balanced(labels: np.ndarray, fraction: float, seed: int) -> List[int]:
    """Pick a fraction of the images of each class at random.

    Args:
        labels (ndarray): The label of each image, shape (N, ).
        fraction (float): Which part of each class, in (0, 1]; at least one
            image of each.
        seed (int): The seed, at least 0.

    Returns:
        list[int]: Their indices, in increasing order.
    """
    generator = np.random.default_rng(seed)
    chosen: List[int] = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        number = max(1, round(fraction * len(members)))
        chosen += members[:number].tolist()
    return sorted(chosen)


def iterate(
    dataset: BaseDataset,
    image_format: ImageFormat,
    indices: Optional[Sequence[int]] = None,
    num_workers: int = 0,
    skip_unreadable: bool = False,
) -> Iterator[Tuple[torch.Tensor, np.ndarray]]:
    """Go through a data set in order, in batches.

    Args:
        dataset (BaseDataset): From :func:`evaluation_dataset`.
        image_format (ImageFormat): What the network expects.
        indices (Sequence[int], optional): Which images. Defaults to None,
            all.
        num_workers (int): How many processes load images; 0 loads them in
            this one. Defaults to 0.
        skip_unreadable (bool): Leave out images that cannot be read, instead
            of an error. Defaults to False.

    Yields:
        tuple[Tensor, ndarray]: Inputs of shape (N, 3, H, W), and labels of
        shape (N, ), -1 where an image has none.

    Raises:
        UnreadableImage: If an image cannot be read.
    """
    if skip_unreadable:
        dataset = _Readable(dataset)
    loader = DataLoader(
        dataset if indices is None else Subset(dataset, indices),
        batch_size=image_format.batch_size,
        num_workers=num_workers,
        collate_fn=_collate,
        # Else it would draw from the global random generator.
        generator=torch.Generator())
    for images, labels in loader:
        if len(images):
            yield image_format.normalise(images), labels


class _Readable(Dataset):
    """A data set with None in place of what cannot be read."""

    def __init__(self, dataset: BaseDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Optional[dict]:
        try:
            return self.dataset[index]
        except UnreadableImage:
            return None


def _collate(items: List[dict]) -> Tuple[np.ndarray, np.ndarray]:
    items = [item for item in items if item is not None]
    images = np.array([item['img'] for item in items])
    labels = np.array([int(item.get('gt_label', -1)) for item in items])
    return images, labels
