# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Which sub-network: one value, and the family that it belongs to."""
import math
import re
from dataclasses import dataclass
from operator import ge
from typing import Dict, Optional, Sequence, Tuple, Union

import numpy as np
from mmcls.models.backbones.resnet import Bottleneck, ResNet, get_expansion
from mmselfsup.registry import TASK_UTILS

from dspnet_mm.channels import ActiveChannels
from dspnet_mm.errors import InputError

Widths = Union[float, Sequence[float]]
Depths = Union[int, Sequence[int]]

# What logs call sub-networks without a name of their own.
LABELS = ('largest', 'smallest', 'random')
# What configs may call a sub-network, whatever the DNs' names are.
ALIASES = ('largest', 'shallowest', 'smallest')
_NAME_PATTERN = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')


@dataclass(frozen=True)
class Subnet:
    """A sub-network of a supernet, as an immutable value.

    Sampling, activation, costs, export, file names, logs and reports share
    it. Make one with :meth:`ResNetFamily.subnet`, which also checks it
    against the family and snaps its widths to whole channels.

    Args:
        widths (tuple[float]): Width of each stage as a fraction of the
            supernet's channels, in (0, 1].
        depths (tuple[int]): Blocks of each stage, at least 1.
        groups (tuple[int]): Which group of each stage's channels it has
            besides those that all share, from 0, see
            :class:`GroupedResNetFamily`. Defaults to (), where channels are
            the first ones.

    Raises:
        InputError: If a width, depth or group is out of its range, or the
            numbers of stages differ.
    """
    widths: Tuple[float, ...]
    depths: Tuple[int, ...]
    groups: Tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ('widths', 'depths', 'groups'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for width in self.widths:
            if not _is_number(width) or not 0 < width <= 1:
                raise InputError(f'width {width!r} is not allowed: each '
                                 "stage's width is a fraction of the "
                                 "supernet's channels, in (0, 1]")
        for depth in self.depths:
            if not _is_integer(depth) or depth < 1:
                raise InputError(f'depth {depth!r} is not allowed: each '
                                 "stage's depth is a whole number of "
                                 'blocks, at least 1')
        for group in self.groups:
            if not _is_integer(group) or group < 0:
                raise InputError(f'group {group!r} is not allowed: each '
                                 "stage's group is a whole number, at least "
                                 '0')
        if self.groups and len(self.groups) != len(self.depths):
            raise InputError(
                f'{len(self.groups)} groups and {len(self.depths)} depths '
                'were given: a sub-network has one group for each stage, or '
                'none at all')
        if not self.widths or len(self.widths) != len(self.depths):
            raise InputError(
                f'{len(self.widths)} widths and {len(self.depths)} depths '
                'were given: a sub-network has one width and one depth '
                'for each stage')

    def __str__(self) -> str:
        """A text that also serves as a file name, e.g. ``w0.5_d1-1-2-1``."""
        widths = [f'{width:.6g}' for width in self.widths]
        if len(set(widths)) == 1:
            widths = widths[:1]
        text = f"w{'-'.join(widths)}_d{'-'.join(map(str, self.depths))}"
        if self.groups:
            text += f"_g{'-'.join(map(str, self.groups))}"
        return text

    def holds(self, other: 'Subnet') -> bool:
        """Whether another one is nowhere wider or deeper.

        Args:
            other (Subnet): Of the same family, without groups of channels.
        """
        return all(
            map(ge, [*self.widths, *self.depths],
                [*other.widths, *other.depths]))


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) \
        and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass(frozen=True)
class _CostMeasure:
    """How much one convolution and its batch norm add to a cost.

    A ``k`` x ``k`` convolution from ``c_in`` to ``c_out`` channels adds
    ``per_weight * k * k * c_in * c_out``, its batch norm ``per_norm *
    c_out``, where ``per_weight`` is given for the stem's output, the first
    stage's input and each stage's output.
    """
    stem: int
    stages: Tuple[int, ...]
    per_norm: int


@TASK_UTILS.register_module()
class ResNetFamily:
    """ResNets of one architecture, each stage with its own width and depth.

    The family is the space between its smallest member and the supernet,
    with the desired networks (DNs) as its named members. A width of a stage
    is ``c / base_channels`` for a whole number ``c``; the stage then has
    ``c * 2**stage`` channels (four times as many behind a bottleneck). This
    way every uniform width is a stock ResNet with ``base_channels = c``
    (our choice; so is that the stem has the first stage's width).

    Args:
        depth (int): Depth of the supernet, one of 18, 34, 50, 101, 152.
        desired (list[dict]): The desired networks, each a dict with ``name``
            (letters, digits, ``.``, ``_``, ``-``) and optionally ``widths``
            and ``depths``, one value for all stages or one each. Default
            to the supernet's.
        base_channels (int): Channels of the supernet's stem.
            Defaults to 64.
        stem (str): 'imagenet' (7x7 convolution with stride 2 and max
            pooling) or 'small' (3x3 convolution, for images of some 32
            pixels). Defaults to 'imagenet'.
        in_channels (int): Channels of the images. Defaults to 3.
        input_size (int): Height and width of the images in pixels, at which
            FLOPs are counted. Defaults to 224.
        min_widths (float | Sequence[float], optional): Smallest width of
            each stage. Defaults to None, the smallest among the DNs.
        min_depths (int | Sequence[int], optional): Smallest depth of each
            stage. Defaults to None, the smallest among the DNs.

    Raises:
        InputError: If a value is not allowed.
    """

    # What says, besides its name, which sub-network is desired.
    _DESIRED_KEYS = ('widths', 'depths')

    def __init__(self,
                 depth: int,
                 desired: Sequence[dict],
                 base_channels: int = 64,
                 stem: str = 'imagenet',
                 in_channels: int = 3,
                 input_size: int = 224,
                 min_widths: Optional[Widths] = None,
                 min_depths: Optional[Depths] = None) -> None:
        if depth not in ResNet.arch_settings:
            raise InputError(f'depth {depth!r} is not a ResNet: allowed are '
                             f'{sorted(ResNet.arch_settings)}')
        if stem not in ('imagenet', 'small'):
            raise InputError(f"stem {stem!r} is unknown: allowed are "
                             "'imagenet' and 'small'")
        for name, value in dict(
                base_channels=base_channels,
                in_channels=in_channels,
                input_size=input_size).items():
            if not _is_integer(value) or value < 1:
                raise InputError(f'{name} {value!r} is not allowed: give a '
                                 'whole number of at least 1')
        self.depth = depth
        self.base_channels = base_channels
        self.stem = stem
        self.in_channels = in_channels
        self.input_size = input_size
        self.block, self.full_depths = ResNet.arch_settings[depth]
        self.expansion = get_expansion(self.block)
        self.num_stages = len(self.full_depths)

        # Every width and depth is allowed until the DNs set the minimum.
        self._min_channels = (1, ) * self.num_stages
        self._min_depths = (1, ) * self.num_stages
        self.full = self.subnet()
        self.desired = self._named(desired)
        self.smallest = self._smallest(min_widths, min_depths)
        self._min_channels = self.channels(self.smallest)
        self._min_depths = self.smallest.depths
        for name, member in self.desired.items():
            self.check_member(member, f'desired network {name!r}')

    def _smallest(self, min_widths: Optional[Widths],
                  min_depths: Optional[Depths]) -> Subnet:
        members = list(self.desired.values())
        if min_widths is None:
            min_widths = [min(w) for w in zip(*(m.widths for m in members))]
        if min_depths is None:
            min_depths = [min(d) for d in zip(*(m.depths for m in members))]
        return self.subnet(min_widths, min_depths)

    def _named(self, desired: Sequence[dict]) -> Dict[str, Subnet]:
        if not desired:
            raise InputError('the family names no desired network: give '
                             '`desired` at least one dict(name=..., '
                             'widths=..., depths=...)')
        named: Dict[str, Subnet] = {}
        for entry in desired:
            entry = dict(entry)
            name = entry.pop('name', None)
            unknown = sorted(set(entry) - {*self._DESIRED_KEYS})
            if unknown:
                raise InputError(f'desired network {name!r} has the unknown '
                                 f'keys {unknown}: allowed are name, '
                                 f'{" and ".join(self._DESIRED_KEYS)}')
            if not isinstance(name, str) or not _NAME_PATTERN.fullmatch(name):
                raise InputError(f'desired network name {name!r} is not '
                                 'allowed: use letters, digits, ".", "_" '
                                 'and "-", as it becomes a file name')
            taken = [*dict.fromkeys((*LABELS, *ALIASES, *named))]
            if name in taken:
                raise InputError(f'desired network name {name!r} is taken: '
                                 f'{taken} cannot be used')
            subnet = self.subnet(**entry)
            if subnet in named.values():
                raise InputError(f'desired network {name!r} is {subnet}, '
                                 'which has a name already: '
                                 f'{self._listing(named)}')
            named[name] = subnet
        return named

    def subnet(self,
               widths: Widths = 1.0,
               depths: Optional[Depths] = None) -> Subnet:
        """Make a sub-network of the family.

        Args:
            widths (float | Sequence[float]): Width of all stages or of
                each, snapped to whole channels. Defaults to 1.0.
            depths (int | Sequence[int], optional): Depth of all stages or of
                each. Defaults to None, the supernet's.

        Returns:
            Subnet: The sub-network.

        Raises:
            InputError: If it does not belong to the family.
        """
        depths = self.full_depths if depths is None else depths
        snapped = []
        asked = Subnet(
            self._per_stage(widths, 'width'), self._per_stage(depths, 'depth'))
        for width in asked.widths:
            # Halves round up, unlike Python's round().
            channels = math.floor(width * self.base_channels + 0.5)
            if channels < 1:
                raise InputError(
                    f'width {width} leaves no channel of '
                    f'{self.base_channels}: the smallest width is '
                    f'{0.5 / self.base_channels:.6g}')
            snapped.append(channels / self.base_channels)
        subnet = Subnet(tuple(snapped), asked.depths)
        self.check_member(subnet, f'sub-network {subnet}')
        return subnet

    def _per_stage(self, values, what: str) -> tuple:
        if isinstance(values, (list, tuple, np.ndarray)):
            if len(values) == 1:
                values = values[0]
            elif len(values) != self.num_stages:
                raise InputError(
                    f'{len(values)} {what}s were given: allowed are one for '
                    f'all stages or {self.num_stages}, one for each')
            else:
                return tuple(values)
        return (values, ) * self.num_stages

    def check_member(self, subnet: Subnet, what: str) -> None:
        """Refuse a sub-network of another family.

        Args:
            subnet (Subnet): The sub-network.
            what (str): What an error calls it.

        Raises:
            InputError: If its widths or depths are outside of the family.
        """
        channels = self.channels(subnet)
        if len(channels) != self.num_stages \
                or any(c < low for c, low in zip(
                    channels, self._min_channels)) \
                or any(not low <= d <= high for d, low, high in zip(
                    subnet.depths, self._min_depths, self.full_depths)):
            raise InputError(f'{what} is outside of the family: allowed are '
                             f'{self.describe_space()}')

    def describe_space(self) -> str:
        """The allowed widths and depths of each stage, in words."""
        widths = ', '.join(f'{c / self.base_channels:.6g} to 1'
                           for c in self._min_channels)
        depths = ', '.join(
            f'{low} to {high}'
            for low, high in zip(self._min_depths, self.full_depths))
        return (f'widths [{widths}] in steps of 1/{self.base_channels} and '
                f'depths [{depths}], by stage')

    def __getitem__(self, name: str) -> Subnet:
        """The desired network of that name, or what an alias means.

        Args:
            name (str): Name of a DN, or 'largest' (the supernet), 'smallest',
                or 'shallowest' (the DN of fewest blocks, of several that of
                most FLOPs).

        Raises:
            InputError: If there is none.
        """
        if name == 'largest':
            return self.full
        if name == 'smallest':
            return self.smallest
        if name == 'shallowest':
            return min(
                self.desired.values(),
                key=lambda subnet: (sum(subnet.depths), -self.flops(subnet)))
        if name not in self.desired:
            raise InputError(f'no desired network is called {name!r}: the '
                             f'family has {self._listing(self.exported)}')
        return self.desired[name]

    @property
    def exported(self) -> Dict[str, Subnet]:
        """What is exported where all are asked for: the DNs, by name."""
        return dict(self.desired)

    @staticmethod
    def _listing(named: Dict[str, Subnet]) -> str:
        return ', '.join(f'{name} ({subnet})'
                         for name, subnet in named.items())

    def name_of(self, subnet: Subnet) -> str:
        """The name of a DN, else the sub-network as text."""
        for name, member in self.desired.items():
            if member == subnet:
                return name
        return str(subnet)

    def label_of(self, subnet: Subnet) -> str:
        """A label from a small set, for logs.

        Returns:
            str: The name of a DN, else 'largest', 'smallest' or 'random'.
        """
        name = self.name_of(subnet)
        if name in self.desired:
            return name
        if subnet == self.full:
            return 'largest'
        return 'smallest' if subnet == self.smallest else 'random'

    def channels(self, subnet: Subnet) -> Tuple[int, ...]:
        """Each stage's width in channels of the stem.

        Args:
            subnet (Subnet): The sub-network.

        Returns:
            tuple[int]: Whole numbers from 1 to ``base_channels``; stage
            ``i`` has ``2**i`` times as many channels inside its blocks.
        """
        return tuple(round(w * self.base_channels) for w in subnet.widths)

    def inner_channels(self, subnet: Subnet) -> Tuple[int, ...]:
        """Channels inside the blocks of each stage."""
        return tuple(c * 2**stage
                     for stage, c in enumerate(self.channels(subnet)))

    def active_channels(self, subnet: Subnet) -> Tuple[ActiveChannels, ...]:
        """Which channels inside the supernet's blocks it uses, by stage."""
        return self.inner_channels(subnet)

    def out_channels(self, subnet: Subnet) -> Tuple[int, ...]:
        """Channels that each stage puts out, for a neck."""
        return tuple(c * self.expansion for c in self.inner_channels(subnet))

    def params(self, subnet: Subnet) -> int:
        """Number of parameters of the plain backbone."""
        return int(self._cost(self._params_measure(), subnet))

    def flops(self, subnet: Subnet, input_size: Optional[int] = None) -> int:
        """FLOPs of the plain backbone for one image.

        A FLOP is one multiply-add of a convolution, as usual in the field.

        Args:
            subnet (Subnet): The sub-network.
            input_size (int, optional): Height and width of the image in
                pixels. Defaults to None, the family's.

        Returns:
            int: The number of multiply-adds.
        """
        return int(self._cost(self._flops_measure(input_size), subnet))

    def _params_measure(self) -> _CostMeasure:
        return _CostMeasure(1, (1, ) * (self.num_stages + 1), 2)

    def _flops_measure(self, input_size: Optional[int]) -> _CostMeasure:
        size = self.input_size if input_size is None else input_size
        # A convolution of odd kernel k, padding k // 2 and stride 2 halves
        # the size, rounding up.
        stem = (size + 1) // 2 if self.stem == 'imagenet' else size
        size = (stem + 1) // 2 if self.stem == 'imagenet' else stem
        pixels = [size**2, size**2]
        for _ in range(1, self.num_stages):
            size = (size + 1) // 2
            pixels.append(size**2)
        return _CostMeasure(stem**2, tuple(pixels), 0)

    def _cost(self, measure: _CostMeasure, subnet: Subnet):
        channels = self.channels(subnet)
        total = self._stem_cost(measure, channels[0])
        before = channels[0]
        for stage, (c, depth) in enumerate(zip(channels, subnet.depths)):
            total += self._stage_cost(measure, stage, before, c, depth)
            before = c
        return total

    def _stem_cost(self, measure: _CostMeasure, c):
        kernel = 7 if self.stem == 'imagenet' else 3
        return (measure.stem * kernel**2 * self.in_channels +
                measure.per_norm) * c

    def _stage_cost(self, measure: _CostMeasure, stage: int, before, c, depth):
        """Cost of a stage; the arguments may be arrays that broadcast.

        ``before`` and ``c`` are the previous and the own stage's width in
        channels of the stem.
        """
        at_input = measure.stages[stage]
        at_output = measure.stages[stage + 1]
        norm = measure.per_norm
        inner = c * 2**stage
        out = inner * self.expansion
        incoming = before if stage == 0 else \
            before * 2**(stage - 1) * self.expansion
        if self.block is Bottleneck:
            body = (at_output * 9 * inner + 2 * norm) * inner \
                + (at_output * inner + norm) * out
            first = at_input * incoming * inner + body
            other = at_output * out * inner + body
        else:
            second = (at_output * 9 * inner + norm) * inner
            first = (at_output * 9 * incoming + norm) * inner + second
            other = 2 * second
        if stage > 0 or self.expansion > 1:
            first = first + (at_output * incoming + norm) * out
        return first + (depth - 1) * other

    def largest_within(self,
                       max_flops: Optional[int] = None,
                       max_params: Optional[int] = None,
                       input_size: Optional[int] = None,
                       desired_first: bool = True) -> Subnet:
        """The largest sub-network inside a budget.

        Args:
            max_flops (int, optional): Budget in multiply-adds for an image.
                Defaults to None.
            max_params (int, optional): Budget in parameters. Exactly one of
                the two budgets is given. Defaults to None.
            input_size (int, optional): Height and width of the image in
                pixels. Defaults to None, the family's.
            desired_first (bool): Let a DN that fits go before the rest of
                the space, as DNs are what the supernet is trained for.
                Defaults to True.

        Returns:
            Subnet: Of those that fit, the one that costs most.

        Raises:
            InputError: If none fits; the message names the smallest.
        """
        if (max_flops is None) == (max_params is None):
            raise InputError('give exactly one budget: max_flops or '
                             'max_params')
        if max_flops is not None:
            what, budget = 'FLOPs', max_flops
            measure = self._flops_measure(input_size)
        else:
            what, budget = 'parameters', max_params
            measure = self._params_measure()
        fitting = [(self._cost(measure, subnet), subnet)
                   for subnet in self.desired.values()
                   if self._cost(measure, subnet) <= budget]
        if fitting and desired_first:
            return max(fitting, key=lambda pair: pair[0])[1]
        found = self._search_space(measure, budget)
        if found is None:
            least = self._cost(measure, self.smallest)
            raise InputError(
                f'no sub-network fits into {budget:,} {what}: the smallest, '
                f'{self.smallest}, has {least:,}; raise the budget or train '
                'a family with smaller networks')
        return found

    def _search_space(self, measure: _CostMeasure,
                      budget: int) -> Optional[Subnet]:
        """Exact search: the first two stages against the last two.

        The halves meet in the second stage's width. For each of its values
        every first half is completed by the dearest second half that fits,
        found by bisection in the sorted costs: thousands of steps instead of
        the billions of sub-networks that a ResNet-50 has.
        """
        widths = [
            np.arange(low, self.base_channels + 1)
            for low in self._min_channels
        ]
        depths = [
            np.arange(low, high + 1)
            for low, high in zip(self._min_depths, self.full_depths)
        ]
        best_cost, best = -1, None
        for c2 in widths[1].tolist():
            c1, d1, d2 = (
                axis.ravel() for axis in np.meshgrid(
                    widths[0], depths[0], depths[1], indexing='ij'))
            c3, d3, c4, d4 = (
                axis.ravel() for axis in np.meshgrid(
                    widths[2], depths[2], widths[3], depths[3], indexing='ij'))
            left = self._stem_cost(measure, c1) \
                + self._stage_cost(measure, 0, c1, c1, d1) \
                + self._stage_cost(measure, 1, c1, c2, d2)
            right = self._stage_cost(measure, 2, c2, c3, d3) \
                + self._stage_cost(measure, 3, c3, c4, d4)
            order = np.argsort(right, kind='stable')
            position = np.searchsorted(
                right[order], budget - left, side='right') - 1
            total = np.where(position >= 0,
                             left + right[order[np.maximum(position, 0)]], -1)
            i = int(total.argmax())
            if total[i] > best_cost:
                j = order[position[i]]
                best_cost = int(total[i])
                best = ((c1[i], c2, c3[j], c4[j]), (d1[i], d2[i], d3[j],
                                                    d4[j]))
        if best is None:
            return None
        channels, chosen_depths = best
        return self.subnet([int(c) / self.base_channels for c in channels],
                           [int(d) for d in chosen_depths])

    def random(self,
               generator: np.random.Generator,
               uniform: bool = False,
               least: Optional[Subnet] = None) -> Subnet:
        """Draw from the space, each stage's width and depth evenly.

        Args:
            generator (Generator): What draws.
            uniform (bool): Draw one place for all stages, between the least
                and the most, for the widths and another for the depths.
                Defaults to False.
            least (Subnet, optional): A member; what is drawn is nowhere
                narrower or less deep. Defaults to None, the smallest.
        """
        if least is None:
            least = self.smallest
        places = generator.random((2, self.num_stages))
        if uniform:
            places[:] = places[:, :1]
        width_places, depth_places = places
        channels = [
            low + int(place * (self.base_channels + 1 - low))
            for place, low in zip(width_places, self.channels(least))
        ]
        depths = [
            low + int(place * (high + 1 - low)) for place, low, high in zip(
                depth_places, least.depths, self.full_depths)
        ]
        return self.subnet([c / self.base_channels for c in channels], depths)
