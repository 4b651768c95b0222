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
