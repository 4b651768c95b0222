# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Cluster images by a network's features."""
import hashlib
import math
import os
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dspnet_mm.datasets import UnreadableImage
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import ImageFormat, iterate, pick
from dspnet_mm.files import read_json, write_json
from dspnet_mm.models import SDR, SupernetAlgorithm
from dspnet_mm.slimming import recalibrate, slim

# How often k-means goes through the images, and how many at a time.
_PASSES = 5
_CHUNK = 8192
# Features are kept after so many images.
_KEEP_INTERVAL = 10000


class _AllImages(Dataset):
    """A data set with black images in place of what cannot be read.

    Training passes over such images, but each has to be of a cluster.
    """

    def __init__(self, dataset: BaseDataset, size: int) -> None:
        self.dataset = dataset
        self.black = np.zeros((size, size, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        try:
            return self.dataset[index]
        except UnreadableImage:
            return dict(img=self.black)


def backbone_of(model: SupernetAlgorithm) -> nn.Module:
    """The network whose features are clustered, as a plain one.

    Args:
        model (SupernetAlgorithm): With :class:`SDR`, the network is the
            unified one, averaged as a target network is; else the online
            supernet.

    Returns:
        Module: Its batch norm is to be recalibrated.
    """
    if isinstance(model, SDR):
        network = model.unified_net if model.levels else model.target_net
        return slim(network[0], model.unified)
    return slim(model.backbone, model.family.full)


@torch.no_grad()
def image_features(backbone: nn.Module,
                   dataset: BaseDataset,
                   image_format: ImageFormat,
                   path: str,
                   num_workers: int = 0,
                   num_calibration: int = 1024,
                   progress: Callable[[str], None] = print) -> np.ndarray:
    """Compute the features of all images, on disk instead of in memory.

    What an interrupted call has computed with the same weights is kept.

    Args:
        backbone (nn.Module): A plain backbone, whose batch norm is
            recalibrated first.
        dataset (BaseDataset): From :func:`evaluation_dataset`.
        image_format (ImageFormat): What the network expects.
        path (str): A file of NumPy's for the features; how far they are is
            kept beside it, in PATH.json.
        num_workers (int): How many processes load images; 0 loads them in
            this one. Defaults to 0.
        num_calibration (int): How many images batch norm is recalibrated on.
            Defaults to 1024.
        progress (Callable): Is told how far it is. Defaults to print.

    Returns:
        ndarray: Directions of the pooled features, float32, shape (N, D),
        mapped from the file.
    """
    device = next(backbone.parameters()).device
    images = _AllImages(dataset, image_format.input_size)

    def batches(indices: Sequence[int]) -> Iterator[torch.Tensor]:
        for inputs, _ in iterate(images, image_format, indices, num_workers):
            yield inputs.to(device)

    recalibrate(backbone, batches(pick(images, num_calibration, seed=0)))
    backbone.eval()
    first = backbone(next(batches([0])))[-1]
    shape = (len(images), first.shape[1])
    kept = dict(weights=_digest(backbone), images=len(images), done=0)
    known = read_json(f'{path}.json') if os.path.exists(path) else {}
    if dict(known, done=0) == kept:
        kept, mode = known, 'r+'
    else:
        mode = 'w+'
        # It would speak of the new file.
        if known:
            os.remove(f'{path}.json')
    features = np.lib.format.open_memmap(path, mode, np.float32, shape)
    for start in range(kept['done'], len(images), _KEEP_INTERVAL):
        stop = min(start + _KEEP_INTERVAL, len(images))
        at = start
        for inputs in batches(range(start, stop)):
            output = backbone(inputs)[-1].mean((2, 3))
            features[at:at + len(output)] = F.normalize(output, dim=1).cpu()
            at += len(output)
        features.flush()
        write_json(f'{path}.json', dict(kept, done=stop))
        progress(f'features of {stop} of {len(images)} images')
    return features


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def cluster_tree(features: np.ndarray,
                 num_groups: int,
                 levels: int,
                 balanced: bool = True,
                 seed: int = 0) -> np.ndarray:
    """Divide images into clusters, and these into clusters again.

    By k-means in batches (scikit-learn's), the memory of which does not
    depend on the number of images; besides a few numbers for each image, none
    is held. That clusters make a tree, so that similar ones share groups of
    channels, is our choice; the alternative, as many means at once, says
    nothing of which of them are alike.

    Args:
        features (ndarray): Shape (N, D).
        num_groups (int): Into how many parts each is divided, at least 2.
        levels (int): How often, at least 1.
        balanced (bool): Let the parts be of one size, or differ by one image:
            each goes to the nearest mean that has room, those first to whom
            it matters most. Defaults to True.
        seed (int): For the means' start and the order of the images. Defaults
            to 0.

    Returns:
        ndarray: The cluster of each image, from 0 to num_groups ** levels - 1,
        shape (N, ). The first digit to base num_groups is the first division's
        part, and so on.

    Raises:
        InputError: If there are fewer images than clusters.
    """
    if len(features) < num_groups**levels:
        raise InputError(f'{len(features)} images cannot make '
                         f'{num_groups**levels} clusters: give more images or '
                         'ask for fewer clusters')
    clusters = np.zeros(len(features), int)
    for level in range(levels):
        before = clusters.copy()
        for number in range(num_groups**level):
            members = np.flatnonzero(before == number)
            clusters[members] = number * num_groups + _divided(
                features, members, num_groups, balanced, seed)
    return clusters


def _divided(features: np.ndarray, members: np.ndarray, number: int,
             balanced: bool, seed: int) -> np.ndarray:
    """The part of each member."""
    if len(members) <= number:
        return np.arange(len(members))
    generator = np.random.default_rng(seed)
    means = MiniBatchKMeans(number, random_state=seed, n_init=3)
    chunks = math.ceil(len(members) / _CHUNK)
    for _ in range(_PASSES):
        for chunk in np.array_split(generator.permutation(members), chunks):
            means.partial_fit(features[np.sort(chunk)])
    distances = np.concatenate([
        means.transform(features[chunk])
        for chunk in np.array_split(members, chunks)
    ])
    nearest = distances.argsort(axis=1)
    if not balanced:
        return nearest[:, 0]
    ordered = np.sort(distances, axis=1)
    parts = np.empty(len(members), int)
    room = np.full(number, len(members) // number)
    # So many parts have one more.
    left_over = len(members) % number
    for image in np.argsort(ordered[:, 0] - ordered[:, 1], kind='stable'):
        part = next(part for part in nearest[image]
                    if room[part] > 0 or (room[part] == 0 and left_over))
        if room[part] == 0:
            left_over -= 1
        parts[image] = part
        room[part] -= 1
    return parts
