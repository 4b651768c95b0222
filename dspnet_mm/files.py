# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
from contextlib import contextmanager
from typing import Iterator


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
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
