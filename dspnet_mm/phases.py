# Copyright (c) The dspnet_mm authors. All rights reserved.
import bisect
from typing import Any, Optional, Sequence, Tuple

from dspnet_mm.errors import InputError


class Phases:
    """What holds in which part of a training.

    Args:
        phases (Sequence[tuple[Any, float]]): A value of each phase, and the
            part of the training, in (0, 1], at whose end it ends.

    Raises:
        InputError: If the ends do not increase to 1.
    """

    def __init__(self, phases: Sequence[Tuple[Any, Optional[float]]]) -> None:
        self.values = [value for value, _ in phases]
        self._ends = ends = [end for _, end in phases]
        if None in ends or ends != sorted(set(ends)) or \
                ends[:1] <= [0] or ends[-1] != 1:
            raise InputError(f"the phases' ends, until={ends}, are not "
                             'allowed: give each phase an end above that of '
                             'the one before, and the last one 1')

    def at(self, progress: float) -> Any:
        """The value that holds.

        Args:
            progress (float): Which part of the training is done, in [0, 1).
        """
        return self.values[bisect.bisect_right(self._ends[:-1], progress)]
