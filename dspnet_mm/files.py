# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from contextlib import contextmanager
from typing import Iterator

from .errors import InputError


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Write a file so that it is there either whole or not at all.

    Args:
        path (str): The file; its folder is made where it does not exist.

    Yields:
        str: A temporary path to write to, with the same extension. It is
        renamed when the block ends, and removed when the block fails.
    """
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f'.tmp-{name}')
    try:
        yield temporary
        # Else a power cut could leave the new name on an empty file.
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def check_writable(path: str) -> None:
    """Refuse a file that cannot be written, before work begins.

    Args:
        path (str): The file; folders on the way to it may be missing.

    Raises:
        InputError: If it is a folder, or lies where nothing can be written.
    """
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder: give the name of a file')
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(f'{path} cannot be written: {folder} is no folder '
                         'that can be written to')
