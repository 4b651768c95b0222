# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The family of sub-networks that share some of their channels only."""
from itertools import product
from typing import Dict, Optional, Sequence, Tuple

from mmselfsup.registry import TASK_UTILS

from dspnet_mm.channels import ActiveChannels, Channels
from dspnet_mm.errors import InputError
from dspnet_mm.subnet import Depths, ResNetFamily, Subnet, Widths

# What the network is called that sub-networks part from, and distill from.
UNIFIED = 'unified'


@TASK_UTILS.register_module()
class GroupedResNetFamily(ResNetFamily):
    """ResNets of one size that share channels, and have others each.

    For SDR (arXiv 2205.13267). The channels of each stage of the supernet
    are some that all sub-networks use, and groups of further ones, of which a
    sub-network uses one. How the groups are cut is not at hand; that they are
    equal, behind the shared channels, and as many in each stage, is our
    choice. So is that sub-networks differ in the last stages first, which
    hold most of the weights and are the most specific: each of the last
    ``levels`` stages has a group of its choice, the earlier ones their first.
    The alternative, groups of any channels that a gate chooses, would have to
    be learned, and cannot be slimmed before it is.

    The desired networks are numbered by their groups, those of the last stage
    first: ``cluster-0`` to ``cluster-15`` for 2 groups in 4 stages.

    Args:
        depth (int): Depth of the supernet, one of 18, 34, 50, 101, 152.
        base_channels (int): Channels of the supernet's stem: those that are
            shared, and all groups of the first stage.
        shared_channels (int): How many of these are shared, at least 1.
        num_groups (int): How many groups each stage has, at least 2.
        levels (int): In how many of the last stages sub-networks differ,
            from 1 to 4. Defaults to 4.
        **kwargs: ``stem``, ``in_channels`` and ``input_size`` of
            :class:`ResNetFamily`.

    Attributes:
        num_clusters (int): How many sub-networks are desired,
            ``num_groups ** levels``.

    Raises:
        InputError: If a value is not allowed.
    """
    _DESIRED_KEYS = ('groups', )

    def __init__(self,
                 depth: int,
                 base_channels: int,
                 shared_channels: int,
                 num_groups: int,
                 levels: int = 4,
                 **kwargs) -> None:
        unknown = sorted({*kwargs} - {'stem', 'in_channels', 'input_size'})
        if unknown:
            raise InputError(f'{", ".join(unknown)} is not of this family, '
                             'whose sub-networks are of one size: leave it '
                             'out')
        if not 1 <= shared_channels < base_channels:
            raise InputError(f'shared_channels={shared_channels} is not '
                             f'allowed: give 1 to {base_channels - 1}')
        if num_groups < 2 or (base_channels - shared_channels) % num_groups:
            raise InputError(
                f'num_groups={num_groups} is not allowed: give at least 2, so '
                f'that the {base_channels - shared_channels} channels that '
                'are not shared make equal groups')
        if not 1 <= levels <= 4:
            raise InputError(f'levels={levels} is not allowed: give 1 to 4, '
                             'the number of stages')
        self.shared_channels = shared_channels
        self.num_groups = num_groups
        self.group_channels = (base_channels - shared_channels) // num_groups
        self.levels = levels
        self.num_clusters = num_groups**levels
        digits = len(str(self.num_clusters - 1))
        numbered = enumerate(product(range(num_groups), repeat=levels))
        desired = [
            dict(
                name=f'cluster-{number:0{digits}d}',
                groups=(0, ) * (4 - levels) + last_first[::-1])
            for number, last_first in numbered
        ]
        super().__init__(depth, desired, base_channels, **kwargs)

    def subnet_of(self, cluster: int, levels: Optional[int] = None) -> Subnet:
        """The sub-network of a cluster.

        Args:
            cluster (int): Its number, from 0.
            levels (int, optional): In how many of the last stages
                sub-networks differ so far: what clusters with equal groups
                there share. Defaults to None, as many as ever.

        Returns:
            Subnet: The sub-network.

        Raises:
            InputError: If there is no such cluster.
        """
        if not 0 <= cluster < self.num_clusters:
            raise InputError(f'cluster {cluster} has no sub-network: there '
                             f'are {self.num_clusters}, from 0')
        groups = list(self.desired.values())[cluster].groups
        common = 0 if levels is None else self.num_stages - levels
        return self.subnet(groups=(0, ) * common + groups[common:])

    def __getitem__(self, name: str) -> Subnet:
        """See :meth:`ResNetFamily.__getitem__`.

        The unified network, from which all others part, has the channels of
        the first one.
        """
        return self.subnet_of(0) if name == UNIFIED else super().__getitem__(
            name)

    @property
    def exported(self) -> Dict[str, Subnet]:
        """See :attr:`ResNetFamily.exported`: with the unified network."""
        return {**super().exported, UNIFIED: self[UNIFIED]}

    def subnet(self,
               widths: Widths = 1.0,
               depths: Optional[Depths] = None,
               groups: Optional[Sequence[int]] = None) -> Subnet:
        """Make a sub-network of the family.

        Args:
            widths (float | Sequence[float]): 1, as sub-networks are of one
                size. Defaults to 1.0.
            depths (int | Sequence[int], optional): The supernet's. Defaults
                to None.
            groups (Sequence[int], optional): Which group of each stage it
                has. Defaults to None, all of them: the supernet.

        Returns:
            Subnet: The sub-network.

        Raises:
            InputError: If it does not belong to the family.
        """
        full = super().subnet()
        asked = super().subnet(widths, depths)
        if asked != full:
            raise InputError(f'sub-network {asked} is outside of the family: '
                             f'allowed are {self.describe_space()}')
        if groups is None:
            return full
        width = (self.shared_channels +
                 self.group_channels) / self.base_channels
        subnet = Subnet((width, ) * self.num_stages, full.depths, groups)
        if not subnet.groups:
            raise InputError(f'groups={groups} is not allowed: give one for '
                             f'each stage, as {self.describe_space()} have')
        if max(groups) >= self.num_groups:
            raise InputError(f'group {max(groups)} does not exist: each stage '
                             f'has {self.num_groups}, from 0')
        return subnet

    def _smallest(self, *limits) -> Subnet:
        return next(iter(self.desired.values()))

    def describe_space(self) -> str:
        """See :meth:`ResNetFamily.describe_space`."""
        first, *_, last = self.desired
        return (f'{first} to {last}, all of one size, with one of '
                f'{self.num_groups} groups of channels in each of the last '
                f'{self.levels} stages')

    def active_channels(self, subnet: Subnet) -> Tuple[ActiveChannels, ...]:
        """See :meth:`ResNetFamily.active_channels`."""
        if not subnet.groups:
            return super().active_channels(subnet)
        return tuple(
            self._channels_of(group) * 2**stage
            for stage, group in enumerate(subnet.groups))

    def _channels_of(self, group: int) -> ActiveChannels:
        """In the stem, the channels of what has this group there."""
        shared, size = self.shared_channels, self.group_channels
        if group == 0:
            # The first ones, of which slices are views.
            return shared + size
        start = shared + group * size
        return Channels(((0, shared), (start, start + size)))

    def _search_space(self, measure, budget: int) -> Optional[Subnet]:
        fits = self._cost(measure, self.smallest) <= budget
        return self.smallest if fits else None
