# Copyright (c) The dspnet_mm authors. All rights reserved.
"""How much the loss of each sampled sub-network counts.

The schemes that know of widths are those that SlimCLR compares (arXiv
2209.15525); the width of a sub-network is the mean over its stages, and
"smaller" is one of less width.
"""
import math
from typing import Callable, Dict, List, Union

from dspnet_mm.errors import InputError
from dspnet_mm.subnet import LABELS, ResNetFamily, Subnet

Scheme = Union[str, Dict[str, float]]


def _largest_outweighs(widths: List[float]) -> List[float]:
    largest = max(range(len(widths)), key=widths.__getitem__)
    weights = [1.] * len(widths)
    weights[largest] += sum(widths) - widths[largest]
    return weights


def _smaller_added(widths: List[float]) -> List[float]:
    weights = [
        1 + sum(other for other in widths if other < width) for width in widths
    ]
    return [len(weights) * weight / sum(weights) for weight in weights]


SCHEMES: Dict[str, Callable[[List[float]], List[float]]] = {
    'sum':
    lambda widths: [1.] * len(widths),
    'mean':
    lambda widths: [1 / len(widths)] * len(widths),
    # SlimCLR's own: 2.5, 1, 1, 1 for widths of 1, 0.75, 0.5 and 0.25.
    'largest_outweighs':
    _largest_outweighs,
    # And those that it is compared with there; the last two sum to their
    # number.
    'width':
    lambda widths: widths,
    'width_share':
    lambda widths: [width / sum(widths) for width in widths],
    'width_over_mean':
    lambda widths: [len(widths) * width / sum(widths) for width in widths],
    'smaller_added':
    _smaller_added,
}


def check_scheme(scheme: Scheme, family: ResNetFamily) -> None:
    """Refuse a scheme that does not exist or would do nothing.

    Args:
        scheme (str | dict): See :func:`weights_of`.
        family (ResNetFamily): The family of sub-networks.

    Raises:
        InputError: If it is none of the names, or names what is no
            sub-network or has another name, or gives it a weight that is no
            number from 0 on.
    """
    if isinstance(scheme, dict):
        labels = [*family.desired, *LABELS]
        unknown = sorted(set(scheme) - set(labels))
        if unknown:
            raise InputError(f'loss_weights names {unknown}, which are no '
                             f'sub-networks: allowed are {labels}')
        for label, weight in scheme.items():
            if label in LABELS[:2]:
                name = family.label_of(family[label])
                if name != label:
                    raise InputError(f'loss_weights names {label!r}, which '
                                     f'is a desired network: call it {name!r}')
            if not 0 <= weight < math.inf:
                raise InputError(f'loss_weights={scheme} is not allowed: give '
                                 f'{label!r} a number from 0 on')
    elif not isinstance(scheme, str) or scheme not in SCHEMES:
        raise InputError(f'loss_weights={scheme!r} is not allowed: give '
                         f'{", ".join(map(repr, SCHEMES))} or a dict of '
                         'weights')


def weights_of(scheme: Scheme, subnets: List[Subnet],
               family: ResNetFamily) -> List[float]:
    """The weights of the sub-networks of an iteration.

    Args:
        scheme (str | dict): A name in ``SCHEMES``, or the weights by the
            sub-networks' labels; what is not named has 1.
        subnets (list[Subnet]): What was sampled.
        family (ResNetFamily): The family of sub-networks.

    Returns:
        list[float]: One each.
    """
    if isinstance(scheme, dict):
        return [scheme.get(family.label_of(subnet), 1.) for subnet in subnets]
    return SCHEMES[scheme](
        [sum(subnet.widths) / len(subnet.widths) for subnet in subnets])
