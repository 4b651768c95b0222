# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Cluster images by a network's features."""
import hashlib
import os
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.dataset import BaseDataset
from sklearn.cluster import MiniBatchKMeans
from sklearn.covariance import ledoit_wolf
from sklearn.metrics.pairwise import euclidean_distances
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from dspnet_mm.datasets import UnreadableImage
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import ImageFormat, iterate, pick
from dspnet_mm.files import read_json, write_json
from dspnet_mm.grouped_family import UNIFIED
from dspnet_mm.models import SDR, SupernetAlgorithm
from dspnet_mm.slimming import CALIBRATION_IMAGES, recalibrate, slim

# From how many starts k-means begins, and how many images it takes at a time.
_STARTS = 10
_CHUNK = 8192
# How often clusters get new means and a new covariance at most, and what part
# of the images may still change its cluster when that ends earlier.
_ROUNDS = 20
_FEW = 1e-3
# So many of an image's nearest means are remembered; few images need another.
_NEAREST = 8
# Features are kept after so many images.
_KEEP_INTERVAL = 10000
# How much of the clusters a picture shows.
_SHOWN_CLUSTERS = 8
_SHOWN_IMAGES = 12


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
            unified one; else the online supernet.

    Returns:
        Module: Its batch norm is to be recalibrated.
    """
    if isinstance(model, SDR):
        return slim(model.exported_backbone(UNIFIED), model.unified)
    return slim(model.backbone, model.family.full)


@torch.no_grad()
def image_features(backbone: nn.Module,
                   dataset: BaseDataset,
                   image_format: ImageFormat,
                   path: str,
                   num_workers: int = 0,
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

    recalibrate(backbone, batches(pick(images, CALIBRATION_IMAGES, seed=0)))
    backbone.eval()
    first = backbone(next(batches([0])))[-1]
    shape = (len(images), first.shape[1])
    kept = dict(weights=_digest(backbone), images=len(images), done=0)
    both = all(os.path.exists(each) for each in (path, f'{path}.json'))
    known = read_json(f'{path}.json') if both else {}
    if dict(known, done=0) == kept:
        kept, mode = known, 'r+'
    else:
        mode = 'w+'
        remove_features(path)
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


def remove_features(path: str) -> None:
    """Remove what :func:`image_features` keeps.

    Args:
        path (str): What it was given.
    """
    # First what speaks of the other, which would else speak of the next one.
    for each in (f'{path}.json', path):
        if os.path.exists(each):
            os.remove(each)


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
    """Divide images into clusters that make a tree.

    By k-means in batches (scikit-learn's), the memory of which does not
    depend on the number of images; besides a few numbers for each image, none
    is held. All clusters are found at once, and the tree is then made of
    their means, so that similar clusters share groups of channels. The
    alternative, to divide the images and then each part again, has to cut
    where no gap is, most of all where parts are balanced.

    K-means takes clusters for round, and gives images at the rim of a wide
    one to a narrow one nearby. So images are assigned again by Mahalanobis
    distance, with one covariance for all clusters (of features around their
    means, by Ledoit and Wolf's estimate), until few change. All this is our
    choice.

    Args:
        features (ndarray): Shape (N, D).
        num_groups (int): Into how many parts each branch divides, at least 2.
        levels (int): How often, at least 1.
        balanced (bool): Let the clusters be of one size, or differ by one
            image: each image goes to the nearest mean that has room, those
            first to whom it matters most. Defaults to True.
        seed (int): For the means' start and the order of the images. Defaults
            to 0.

    Returns:
        ndarray: The cluster of each image, from 0 to num_groups ** levels - 1,
        shape (N, ). The first digit to base num_groups is the first division's
        part, and so on.

    Raises:
        InputError: If there are fewer images than clusters.
    """
    number = num_groups**levels
    if len(features) < number:
        raise InputError(f'{len(features)} images cannot make {number} '
                         'clusters: give more images or ask for fewer '
                         'clusters')
    means = _means(features, number, seed)
    whitening = np.eye(features.shape[1], dtype=np.float32)
    clusters = _assigned(features, means, whitening, balanced)
    some = pick(features, _CHUNK, seed)
    for _ in range(_ROUNDS):
        before = clusters
        means = _means_of(features, clusters, means)
        whitening = _whitening_of(features[some] - means[clusters[some]])
        clusters = _assigned(features, means, whitening, balanced)
        if np.mean(clusters != before) < _FEW:
            break
    order = _tree_order(means @ whitening, num_groups, levels, seed)
    return np.argsort(order)[clusters]


def draw_clusters(dataset: BaseDataset, clusters: np.ndarray,
                  seed: int) -> Figure:
    """Draw some images of some clusters, a row for each.

    Args:
        dataset (BaseDataset): The images, whose items have ``img``, uint8 of
            shape (H, W, 3), in BGR.
        clusters (ndarray): The cluster of each, shape (N, ).
        seed (int): Decides which images.

    Returns:
        Figure: At most 8 clusters, the first and the last among them, with up
        to 12 images each.
    """
    generator = np.random.default_rng(seed)
    numbers = np.unique(clusters)
    if len(numbers) > _SHOWN_CLUSTERS:
        places = np.linspace(0, len(numbers) - 1, _SHOWN_CLUSTERS)
        numbers = numbers[places.round().astype(int)]
    figure = Figure(
        figsize=(_SHOWN_IMAGES, 1.2 * len(numbers)), layout='constrained')
    panels = figure.subplots(len(numbers), _SHOWN_IMAGES, squeeze=False)
    for panel in panels.flat:
        panel.axis('off')
    for number, row in zip(numbers, panels):
        members = np.flatnonzero(clusters == number)
        row[0].set_title(
            f'cluster {number}: {len(members)} images',
            loc='left',
            fontsize='small')
        for panel, index in zip(row, generator.permutation(members)):
            try:
                image = dataset[int(index)]['img']
            except UnreadableImage:
                continue
            panel.imshow(image[..., ::-1], interpolation='nearest')
    return figure


def _means(features: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Those of so many clusters."""
    clustering = MiniBatchKMeans(
        number,
        n_init=_STARTS,
        batch_size=_CHUNK,
        compute_labels=False,
        random_state=seed)
    return clustering.fit(features).cluster_centers_


def _means_of(features: np.ndarray, clusters: np.ndarray,
              before: np.ndarray) -> np.ndarray:
    """The means of clusters; where one is empty, what it was before."""
    sums = torch.zeros(before.shape)
    for chunk in _chunks(features):
        sums.index_add_(0, torch.as_tensor(clusters[chunk]),
                        torch.tensor(features[chunk], dtype=sums.dtype))
    sizes = np.bincount(clusters, minlength=len(before))[:, None]
    means = np.where(sizes, sums.numpy() / np.maximum(sizes, 1), before)
    return means.astype(before.dtype)


def _whitening_of(deviations: np.ndarray) -> np.ndarray:
    """What makes their covariance the identity, shape (D, D)."""
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    if not covariance.any():
        # Each is its cluster's mean.
        return np.eye(len(covariance), dtype=np.float32)
    values, vectors = np.linalg.eigh(covariance)
    floor = np.finfo(np.float32).eps * values.max()
    return (vectors / np.sqrt(np.maximum(values, floor))).astype(np.float32)


def _chunks(features: np.ndarray) -> Iterator[slice]:
    """Of all features, some at a time."""
    for start in range(0, len(features), _CHUNK):
        yield slice(start, start + _CHUNK)


def _tree_order(means: np.ndarray, num_groups: int, levels: int,
                seed: int) -> np.ndarray:
    """The order in which those of a branch follow on one another.

    Each branch of the tree has as many means.
    """
    if levels == 1:
        return np.arange(len(means))
    branches = _assigned(
        means,
        _means(means, num_groups, seed),
        np.eye(means.shape[1], dtype=np.float32),
        balanced=True)
    order = []
    for branch in range(num_groups):
        members = np.flatnonzero(branches == branch)
        order.append(members[_tree_order(means[members], num_groups,
                                         levels - 1, seed)])
    return np.concatenate(order)


def _assigned(features: np.ndarray, means: np.ndarray, whitening: np.ndarray,
              balanced: bool) -> np.ndarray:
    """The mean that each is assigned to, see :func:`cluster_tree`."""
    means = means @ whitening
    kept = min(len(means), _NEAREST if balanced else 1)
    nearest = np.empty((len(features), kept), np.int32)
    # By how much the second nearest is farther than the nearest.
    margins = np.zeros(len(features), np.float32)
    for chunk in _chunks(features):
        distances = euclidean_distances(features[chunk] @ whitening, means)
        # Sorting a few takes less time than sorting all.
        near = np.argpartition(distances, kept - 1, axis=1)[:, :kept]
        near_by = np.take_along_axis(distances, near, axis=1)
        order = near_by.argsort(axis=1)
        nearest[chunk] = np.take_along_axis(near, order, axis=1)
        if kept > 1:
            first, second = np.take_along_axis(near_by, order, axis=1)[:, :2].T
            margins[chunk] = second - first
    if not balanced:
        return nearest[:, 0].astype(int)
    parts = np.empty(len(features), int)
    room = np.full(len(means), len(features) // len(means))
    # So many parts have one more.
    left_over = len(features) % len(means)
    for image in np.argsort(-margins, kind='stable'):
        has_room = (room > 0) | ((room == 0) & (left_over > 0))
        near = nearest[image][has_room[nearest[image]]]
        if not len(near):
            row = euclidean_distances(features[image:image + 1] @ whitening,
                                      means)[0]
            near = [np.where(has_room, row, np.inf).argmin()]
        part = parts[image] = near[0]
        left_over -= room[part] == 0
        room[part] -= 1
    return parts
