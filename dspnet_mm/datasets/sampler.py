# Copyright (c) The dspnet_mm authors. All rights reserved.
from typing import Iterator, NamedTuple, Optional, Tuple

from mmengine.dataset import DefaultSampler
from mmselfsup.registry import DATA_SAMPLERS


class Part(NamedTuple):
    """A part of the data.

    Args:
        cluster (int): The number of a cluster.
        levels (int): How many levels of the tree of clusters count; where
            there are more, all clusters below are of the part.
    """
    cluster: int
    levels: int


class Draw(int):
    """The index of an image, and what its random views depend on.

    Any data set takes it for the plain index that it also is.

    Args:
        index (int): Index of the image.
        key (tuple[int]): The run's seed, the epoch, and the image's place in
            the epoch's order. Defaults to ().
        part (Part, optional): The part of the data that its batch comes from,
            see :class:`ClusterBatchSampler`. Defaults to None, all of it.
    """
    key: Tuple[int, ...]
    part: Optional[Part]

    def __new__(cls,
                index: int,
                key: Tuple[int, ...] = (),
                part: Optional[Part] = None) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.key = key
        draw.part = part
        return draw


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """MMEngine's DefaultSampler, able to begin within an epoch.

    What it yields are :class:`Draw`, so that the views of an image do not
    depend on which process loads it, or on when that was started.
    :class:`ResumableTrainLoop` tells it where to begin.

    Args:
        *args: See MMEngine's DefaultSampler.
        **kwargs: See MMEngine's DefaultSampler.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.start = 0

    def __iter__(self) -> Iterator[Draw]:
        for place, index in enumerate(super().__iter__()):
            if self.start <= place < self.num_samples:
                yield Draw(index, (self.seed, self.epoch,
                                   place * self.world_size + self.rank))
