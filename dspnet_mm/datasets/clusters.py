# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Which cluster each image of a data set belongs to, and batches of one."""
import csv
import os
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
from mmselfsup.registry import DATA_SAMPLERS
from torch.utils.data import Dataset

from dspnet_mm.errors import InputError
from dspnet_mm.files import whole_file
from dspnet_mm.phases import Phases
from .pretrain_dataset import PretrainDataset
from .sampler import Draw, Part, ResumableSampler

_COLUMNS = ('image', 'cluster')
# Names of files need not be UTF-8.
_TEXT = dict(newline='', errors='surrogateescape')


def write_clusters(path: str, dataset: PretrainDataset,
                   clusters: Sequence[int]) -> None:
    """Write a cluster list: a CSV file with an image and its cluster a line.

    Args:
        path (str): The file.
        dataset (PretrainDataset): The images.
        clusters (Sequence[int]): The number of each one's cluster, from 0.
    """
    with whole_file(path) as temporary, open(temporary, 'w', **_TEXT) as file:
        # The csv module's own line ends are those of another system.
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(_COLUMNS)
        for index, cluster in enumerate(clusters):
            writer.writerow((dataset.name_of(index), int(cluster)))


def check_names(dataset: Dataset) -> None:
    """Refuse images that a cluster list cannot name.

    Args:
        dataset (Dataset): The images.

    Raises:
        InputError: If the data set is not one of ours.
    """
    if not isinstance(dataset, PretrainDataset):
        raise InputError(f'{type(dataset).__name__} does not name its images, '
                         'as a cluster list does: set train_dataloader.dataset'
                         '.type=ImageFolder, or another PretrainDataset')


def read_clusters(path: str, dataset: PretrainDataset,
                  num_clusters: int) -> np.ndarray:
    """Read a cluster list.

    Args:
        path (str): The file, see :func:`write_clusters`. Images in it that
            the data set does not have are passed over.
        dataset (PretrainDataset): The images.
        num_clusters (int): How many clusters there have to be.

    Returns:
        ndarray: The cluster of each image, shape (N, ).

    Raises:
        InputError: If it cannot be read, does not cover the images, has an
            image twice, or other or empty clusters.
    """
    if not os.path.isfile(path):
        raise InputError(f'{path} is no file: give a cluster list, which '
                         'tools/cluster.py writes')
    listed = {}
    with open(path, **_TEXT) as file:
        rows = csv.reader(file)
        try:
            header = tuple(next(rows, ()))
            for row in rows:
                image, cluster = row
                if image in listed:
                    raise ValueError(f'{image} is listed before')
                listed[image] = int(cluster)
        except (ValueError, csv.Error) as error:
            raise InputError(f'{path}, line {rows.line_num}, is no image and '
                             f'its cluster ({error}): lines like '
                             '"cats/1.png,3" are allowed, one for each image')
    if header != _COLUMNS:
        raise InputError(f'{path} begins with {",".join(header)!r}: the first '
                         f'line of a cluster list is {",".join(_COLUMNS)!r}')
    names = [dataset.name_of(index) for index in range(len(dataset))]
    missing = [name for name in names if name not in listed]
    if missing:
        raise InputError(f'{path} has no cluster for {len(missing)} of '
                         f'{len(names)} images, e.g. {missing[0]}: cluster '
                         'the images that are trained on')
    clusters = np.array([listed[name] for name in names])
    wrong = clusters[(clusters < 0) | (clusters >= num_clusters)]
    if len(wrong):
        raise InputError(f'{path} has the cluster {wrong[0]}: allowed are 0 '
                         f'to {num_clusters - 1}, as many as model.family has '
                         'sub-networks, num_groups to the power of levels')
    check_sizes(clusters, num_clusters, path)
    return clusters


def check_sizes(clusters: np.ndarray,
                num_clusters: int,
                source: str,
                least: int = 2) -> None:
    """Refuse clusters that are empty or too small to learn from.

    Args:
        clusters (ndarray): The cluster of each image, shape (N, ).
        num_clusters (int): How many there have to be.
        source (str): Where they come from, for messages.
        least (int): How many images each has to have. Defaults to 2, which
            batch norm needs.

    Raises:
        InputError: If a cluster has fewer.
    """
    sizes = np.bincount(clusters, minlength=num_clusters)
    small = np.flatnonzero(sizes < least)
    if len(small):
        raise InputError(
            f'{source}: cluster {small[0]} has {sizes[small[0]]} image(s) and '
            f'{len(small)} of {num_clusters} have fewer than {least}: make '
            'fewer clusters, or balanced ones')


@DATA_SAMPLERS.register_module()
class ClusterBatchSampler:
    """Batches of one cluster each, every image once in an epoch.

    For SDR (arXiv 2205.13267); that batches are of one cluster is our choice.
    In mixed ones each sub-network would see few images at a time, too few for
    batch norm, and as many networks would run for each. An epoch has as many
    batches as it had if clusters did not matter, so that schedules do not
    depend on them; a cluster gets its share of these, at least one, spread
    evenly over the epoch, and its images evenly over these. So batches are
    of about the size that is asked for, unless there are many small clusters:
    where they would be more than twice as large, clusters are refused.
    All processes have their part of a batch; where it cannot be divided
    evenly, some have an image less, and count alike. What takes the place of
    an image that cannot be read, see :class:`PretrainDataset`, may be of
    another cluster.

    Clusters make a tree: of cluster ``c`` of ``num_groups ** levels``, the
    first digit to base ``num_groups`` says which branch it belongs to, the
    next one which branch of that, and so on. A phase of the training may
    take fewer levels of it: fewer, larger clusters. With 0 levels, all
    images are one.

    Args:
        sampler (ResumableSampler): The data loader's, which knows the data
            set, the epoch, the seed and the processes.
        batch_size (int): Images of a process in a batch, on average.
        num_groups (int): Into how many each branch of the tree divides.
        phases (Sequence[dict]): Dicts of ``levels``, which do not decrease,
            and ``until``, the part of the training at whose end the phase
            ends; see :class:`PhasedSampler`. How long they are is our choice:
            what parts later has learned more, and has less of the learning
            rate left.
        clusters (str, optional): The cluster list, see
            :func:`write_clusters`. Defaults to None, the one that
            :class:`ClusterHook` writes.

    Attributes:
        max_epochs (int): Of the training, which :class:`ResumableTrainLoop`
            tells.

    Raises:
        InputError: If the phases are not allowed, the images have no names,
            or there are fewer batches than clusters.
    """

    def __init__(self,
                 sampler: ResumableSampler,
                 batch_size: int,
                 num_groups: int,
                 phases: Sequence[dict],
                 clusters: Optional[str] = None) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_groups = num_groups
        self.phases = Phases([(phase.get('levels'), phase.get('until'))
                              for phase in phases])
        levels = self.phases.values
        if not all(isinstance(each, int) and each >= 0 for each in levels) \
                or sorted(levels) != levels:
            raise InputError(f'the phases have the levels {levels}: give '
                             'whole numbers that do not decrease, from 0')
        self.levels = levels[-1]
        self.clusters = clusters
        self.max_epochs: Optional[int] = None
        self._known: Optional[np.ndarray] = None
        if not isinstance(sampler, ResumableSampler):
            raise InputError(f'{type(sampler).__name__} does not say where an '
                             'epoch begins: set train_dataloader.sampler.type'
                             '=ResumableSampler')
        check_names(sampler.dataset)
        if len(self) < self.num_clusters:
            raise InputError(
                f'{len(sampler.dataset)} images make {len(self)} batches, '
                f'fewer than the {self.num_clusters} clusters: make fewer '
                'clusters, or a smaller train_dataloader.batch_size')

    @property
    def num_clusters(self) -> int:
        """How many clusters there are at the end."""
        return self.num_groups**self.levels

    def levels_at(self, epoch: int) -> int:
        """How many levels of the tree an epoch takes."""
        if self.max_epochs is None:
            raise InputError('ClusterBatchSampler does not know how long the '
                             'training is: set train_cfg.type='
                             'ResumableTrainLoop')
        return self.phases.at(epoch / self.max_epochs)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        total = len(self.sampler.dataset)
        return total // (self.batch_size * self.sampler.world_size)

    def __iter__(self) -> Iterator[List[Draw]]:
        sampler = self.sampler
        generator = np.random.default_rng((sampler.seed, sampler.epoch))
        place = 0
        for number, (part, indices) in enumerate(self._batches(generator)):
            first, place = place, place + len(indices)
            # Where a resumed epoch begins.
            if number >= sampler.start // self.batch_size:
                yield [
                    Draw(int(index), (sampler.seed, sampler.epoch, at), part)
                    for at, index in enumerate(indices, first)
                ][sampler.rank::sampler.world_size]

    def _batches(
            self,
            generator: np.random.Generator) -> List[Tuple[Part, np.ndarray]]:
        levels = self.levels_at(self.sampler.epoch)
        images = len(self.sampler.dataset)
        below = self.num_groups**(self.levels - levels)
        branches = np.zeros(images, int)
        if levels:
            branches = self.images_clusters() // below
        order = generator.permutation(images)
        numbers, sizes = np.unique(branches, return_counts=True)
        batches, places = [], []
        for number, share in zip(numbers, shares(sizes, len(self))):
            members = order[branches[order] == number]
            part = Part(int(number) * below, levels)
            batches += [(part, indices)
                        for indices in np.array_split(members, share)]
            # At random, but one in each of as many parts of the epoch: what
            # clusters share would follow a run of one of them.
            places.append((np.arange(share) + generator.random(share)) / share)
        return [batches[i] for i in np.concatenate(places).argsort()]

    def images_clusters(self) -> np.ndarray:
        """The cluster of each image.

        Raises:
            InputError: If the list is missing or wrong, or has clusters that
                are too small for the processes, or make too large batches.
        """
        if self.clusters is None:
            raise InputError(
                'batches of one cluster need a cluster list: set '
                'train_dataloader.batch_sampler.clusters to what '
                'tools/cluster.py writes, or add ClusterHook to custom_hooks')
        if self._known is None:
            known = read_clusters(self.clusters, self.sampler.dataset,
                                  self.num_clusters)
            check_sizes(known, self.num_clusters, self.clusters,
                        2 * self.sampler.world_size)
            self._check_batches(known)
            self._known = known
        return self._known

    def _check_batches(self, clusters: np.ndarray) -> None:
        """Refuse clusters that fill too few batches with their images."""
        allowed = 2 * self.batch_size * self.sampler.world_size
        for levels in self.phases.values:
            branches = clusters // self.num_groups**(self.levels - levels)
            sizes = np.bincount(branches)
            in_batch = -(-sizes // shares(sizes, len(self)))
            largest = in_batch.argmax()
            if in_batch[largest] > allowed:
                raise InputError(
                    f'{self.clusters} leaves the {sizes[largest]} images of '
                    f'one of {len(sizes)} parts so few batches that each has '
                    f'{in_batch[largest]}, more than twice the batch size: '
                    'make fewer clusters, or balanced ones')


def shares(sizes: Sequence[int], total: int) -> List[int]:
    """Divide a total in proportion, each at least 1.

    Args:
        sizes (Sequence[int]): What the shares are to be in proportion to.
        total (int): At least the number of sizes.

    Returns:
        list[int]: Whole numbers that add up to the total.
    """
    whole = sum(sizes)
    result = [max(1, total * size // whole) for size in sizes]
    while sum(result) < total:
        most = max(range(len(sizes)), key=lambda i: (sizes[i] / result[i], -i))
        result[most] += 1
    while sum(result) > total:
        least = min((i for i in range(len(sizes)) if result[i] > 1),
                    key=lambda i: (sizes[i] / result[i], i))
        result[least] -= 1
    return result
