# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Which sub-networks an iteration trains.

A sampler is a function of the iteration, a seed, and the part of the training
that is done: all processes draw the same, and a resumed run draws what the
uninterrupted one would have.
"""
from typing import List, Sequence

import numpy as np
from mmselfsup.registry import TASK_UTILS

from dspnet_mm.datasets import Part
from dspnet_mm.errors import InputError
from dspnet_mm.grouped_family import GroupedResNetFamily
from dspnet_mm.phases import Phases
from dspnet_mm.subnet import ResNetFamily, Subnet


@TASK_UTILS.register_module()
class SandwichSampler:
    """The sandwich rule: the largest, the smallest and some in between.

    From Universally Slimmable Networks (arXiv 1903.05134). That DNs are among
    what is drawn is DSPNet's (arXiv 2207.06075); how often is our choice.

    Args:
        family (ResNetFamily): The family of sub-networks.
        num_random (int): How many sub-networks to draw besides the largest
            and the smallest. Defaults to 1.
        desired_prob (float): The probability, in [0, 1], that a drawn one is
            a DN; otherwise it is any member of the family. Defaults to 0.5.
        uniform (bool): Let the members that are not DNs have one width and
            one depth for all stages, relative to the least and the most,
            instead of each stage its own. Defaults to False.
        smallest (str): A name that the family knows, of what takes the place
            of the smallest; nothing narrower or less deep is drawn. In
            phases (:class:`PhasedSampler`) the range can grow, as in US3L
            (arXiv 2303.06870). Defaults to 'smallest'.

    Raises:
        InputError: If an argument is out of its range, or the family's
            sub-networks have groups of channels.
    """

    def __init__(self,
                 family: ResNetFamily,
                 num_random: int = 1,
                 desired_prob: float = 0.5,
                 uniform: bool = False,
                 smallest: str = 'smallest') -> None:
        if isinstance(family, GroupedResNetFamily):
            raise InputError(
                'SandwichSampler draws widths and depths, but the '
                f'sub-networks of {type(family).__name__} differ in groups of '
                'channels: set model.sampler.type=ClusterSampler')
        if num_random < 0:
            raise InputError(f'num_random={num_random} is not allowed: give '
                             '0 or more')
        if not 0 <= desired_prob <= 1:
            raise InputError(f'desired_prob={desired_prob} is not allowed: '
                             'give a probability, in [0, 1]')
        self.family = family
        self.num_random = num_random
        self.desired_prob = desired_prob
        self.uniform = uniform
        self.smallest = family[smallest]
        self._desired = [
            subnet for subnet in family.desired.values()
            if subnet.holds(self.smallest)
        ]

    @property
    def draws_only_desired(self) -> bool:
        """Whether nothing but DNs can be drawn."""
        ends = {self.family.full, self.smallest}
        return ends <= set(
            self.family.desired.values()) and (self.desired_prob == 1
                                               or not self.num_random)

    def __call__(self,
                 iteration: int,
                 seed: int,
                 progress: float = 0.) -> List[Subnet]:
        """Draw.

        Args:
            iteration (int): The iteration, from 0.
            seed (int): The seed of the run, at least 0.
            progress (float): Which part of the training is done, in [0, 1).
                Defaults to 0.

        Returns:
            list[Subnet]: Different sub-networks, the largest first, and the
            smallest last unless a draw hits it.
        """
        generator = np.random.default_rng([seed, iteration])
        ends = [self.family.full, self.smallest]
        middle: List[Subnet] = []
        for _ in range(self.num_random):
            rest = [
                subnet for subnet in self._desired
                if subnet not in ends + middle
            ]
            if rest and generator.random() < self.desired_prob:
                middle.append(rest[generator.integers(len(rest))])
            elif self.desired_prob < 1:
                middle.append(
                    self.family.random(generator, self.uniform, self.smallest))
        # A family of one member has two equal ends, and a draw from the
        # space may hit what is there already.
        return list(dict.fromkeys([ends[0], *middle, ends[1]]))


@TASK_UTILS.register_module()
class AllDesiredSampler:
    """All desired networks in every iteration.

    The supernet is the first, where it is desired, since others may learn
    from its outputs; the family's order is that of the rest.

    Args:
        family (ResNetFamily): The family of sub-networks.
    """
    draws_only_desired = True

    def __init__(self, family: ResNetFamily) -> None:
        self.subnets = sorted(
            family.desired.values(), key=lambda subnet: subnet != family.full)

    def __call__(self,
                 iteration: int,
                 seed: int,
                 progress: float = 0.) -> List[Subnet]:
        """See :meth:`SandwichSampler.__call__`."""
        return list(self.subnets)


@TASK_UTILS.register_module()
class FixedSampler:
    """One and the same sub-network in every iteration.

    Args:
        family (ResNetFamily): The family of sub-networks.
        name (str): A name that the family knows, see
            :meth:`ResNetFamily.__getitem__`. Defaults to 'largest'.

    Raises:
        InputError: If no DN has that name.
    """

    def __init__(self, family: ResNetFamily, name: str = 'largest') -> None:
        self.subnet = family[name]
        self.draws_only_desired = self.subnet in family.desired.values()

    def __call__(self,
                 iteration: int,
                 seed: int,
                 progress: float = 0.) -> List[Subnet]:
        """See :meth:`SandwichSampler.__call__`."""
        return [self.subnet]


@TASK_UTILS.register_module()
class PhasedSampler:
    """Another sampler in each phase of the training.

    E.g. a supernet that grows, one of its networks alone at first:
    phases=[dict(type='FixedSampler', name='shallowest', until=0.3),
    dict(type='SandwichSampler', until=1.)]. SlimCLR's slow start (arXiv
    2209.15525) is the reverse: the supernet alone for the first half.

    Args:
        family (ResNetFamily): The family of sub-networks.
        phases (Sequence[dict]): Configs of samplers, each with ``until``,
            the part of the training, in (0, 1], at whose end its phase ends.

    Raises:
        InputError: If the ends do not increase to 1.
    """

    def __init__(self, family: ResNetFamily, phases: Sequence[dict]) -> None:
        phases = [dict(phase) for phase in phases]
        ends = [phase.pop('until', None) for phase in phases]
        samplers = [
            TASK_UTILS.build(phase, default_args=dict(family=family))
            for phase in phases
        ]
        self.samplers = Phases([*zip(samplers, ends)])

    @property
    def draws_only_desired(self) -> bool:
        """Whether nothing but DNs can be drawn, in any phase."""
        return all(sampler.draws_only_desired
                   for sampler in self.samplers.values)

    def __call__(self,
                 iteration: int,
                 seed: int,
                 progress: float = 0.) -> List[Subnet]:
        """See :meth:`SandwichSampler.__call__`."""
        return self.samplers.at(progress)(iteration, seed, progress)


@TASK_UTILS.register_module()
class ClusterSampler:
    """The sub-network of the cluster that the batch is of.

    Args:
        family (GroupedResNetFamily): The family of sub-networks.

    Attributes:
        part (Part): Which part of the data, as :class:`SDR` finds in each
            batch. All of it at first.

    Raises:
        InputError: If the family has no groups of channels.
    """
    draws_only_desired = True

    def __init__(self, family: ResNetFamily) -> None:
        if not isinstance(family, GroupedResNetFamily):
            raise InputError(
                f'{type(family).__name__} has no sub-networks for clusters: '
                'set model.family.type=GroupedResNetFamily')
        self.family = family
        self.part = Part(0, 0)

    def __call__(self,
                 iteration: int,
                 seed: int,
                 progress: float = 0.) -> List[Subnet]:
        """See :meth:`SandwichSampler.__call__`."""
        return [self.family.subnet_of(*self.part)]
