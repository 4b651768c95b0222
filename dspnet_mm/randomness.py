# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Random numbers that depend on nothing but a key."""
import random
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """What draws random numbers inside of the block does not show after.

    Those of Python, NumPy and PyTorch on the CPU.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seed_all(*key: int) -> None:
    """Let random numbers depend on the key alone, from now on.

    Those of Python, NumPy and PyTorch on the CPU.

    Args:
        key (int): Whole numbers, at least 0, e.g. a seed and an iteration.
    """
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    # A twentieth of torch.manual_seed's time, which sees to all devices: it
    # is called for every image.
    torch.default_generator.manual_seed(seeds[2])


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Let random numbers inside of the block depend on the key alone.

    What is drawn after the block is not affected.

    Args:
        key (int): See :func:`seed_all`.
    """
    with preserved_random_state():
        seed_all(*key)
        yield
