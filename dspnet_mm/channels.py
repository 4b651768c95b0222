# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Which channels of a supernet's layer a sub-network uses."""
from dataclasses import dataclass
from functools import lru_cache
from typing import Tuple, Union


@dataclass(frozen=True)
class Channels:
    """Channels of a layer that need not be its first.

    Args:
        ranges (tuple[tuple[int, int]]): First channel and the one behind the
            last, of each run of channels, in increasing order.

    Raises:
        ValueError: If the ranges are empty or overlap.
    """
    ranges: Tuple[Tuple[int, int], ...]

    def __post_init__(self) -> None:
        ends = [end for bounds in self.ranges for end in bounds]
        if not ends or ends[0] < 0 or any(
                start >= stop for start, stop in self.ranges) or any(
                    before > after for before, after in zip(ends, ends[1:])):
            raise ValueError(f'{self.ranges} are no channels: give ranges '
                             'that are not empty, one behind the other')

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def __mul__(self, factor: int) -> 'Channels':
        """The same parts of a layer with so many times the channels."""
        return Channels(
            tuple((start * factor, stop * factor)
                  for start, stop in self.ranges))


# A number stands for the first ones.
ActiveChannels = Union[int, Channels]


@lru_cache(maxsize=None)
def slices_of(channels: ActiveChannels) -> Tuple[slice, ...]:
    """The channels as slices of a tensor's dimension."""
    if isinstance(channels, int):
        return (slice(0, channels), )
    return tuple(slice(*bounds) for bounds in channels.ranges)


def number_of(channels: ActiveChannels) -> int:
    """How many channels there are."""
    return channels if isinstance(channels, int) else len(channels)
