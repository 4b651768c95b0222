# Copyright (c) The dspnet_mm authors. All rights reserved.
import math
from statistics import mean, stdev
from typing import Dict, Sequence


def mean_and_error(values: Sequence[float]) -> Dict[str, float]:
    """What reports say of several measurements.

    Args:
        values (Sequence[float]): Independent ones, at least two.

    Returns:
        dict[str, float]: ``mean``, and ``se``, its standard error.
    """
    return dict(mean=mean(values), se=stdev(values) / math.sqrt(len(values)))


def percent(value: Dict[str, float], sign: str = '') -> str:
    """A mean and its standard error as text, e.g. '61.3 ± 0.4'.

    Args:
        value (dict): From :func:`mean_and_error`, of fractions.
        sign (str): '+' if gains are to have one. Defaults to ''.
    """
    return f'{100 * value["mean"]:{sign}.1f} ± {100 * value["se"]:.1f}'
