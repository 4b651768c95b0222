# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch

from .errors import InputError


def check_device(device: str) -> None:
    """Refuse a device that cannot be used, before work begins.

    Args:
        device (str): As PyTorch names devices.

    Raises:
        InputError: If nothing can be put there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split('\n')[0]
        raise InputError(f'device {device!r} cannot be used ({reason}): '
                         "give 'cpu', or e.g. 'cuda:0' where there is one")


def make_current(device: str) -> None:
    """Let this device be the one that is meant where none is named.

    Such as by PyTorch's statistics of memory, and where it waits for a GPU.

    Args:
        device (str): As PyTorch names devices.
    """
    chosen = torch.device(device)
    if chosen.type == 'cuda' and chosen.index is not None:
        torch.cuda.set_device(chosen)
