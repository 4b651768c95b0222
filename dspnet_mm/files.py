# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import shutil
import sys
from contextlib import contextmanager
from typing import Callable, Iterator

from filelock import FileLock, Timeout

from .errors import InputError

RESULT = 'result.json'


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


def write_json(path: str, content: dict) -> None:
    """Write a JSON file, either whole or not at all.

    Args:
        path (str): The file; its folder is made where it does not exist.
        content (dict): What it is to hold.
    """
    with whole_file(path) as temporary, open(temporary, 'w') as file:
        json.dump(content, file, indent=2)
        file.write('\n')


def read_json(path: str) -> dict:
    """Read what :func:`write_json` wrote.

    Args:
        path (str): The file.

    Returns:
        dict: What it holds; nothing where there is no such file.
    """
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def check_new(folder: str) -> None:
    """Refuse the name of a folder to make that exists, or cannot be made.

    Args:
        folder (str): Where :func:`whole_folder` is to write.

    Raises:
        InputError: If it exists, or no file could be written there.
    """
    if os.path.exists(folder):
        raise InputError(f'{folder} exists: give the name of a folder to '
                         'make, or remove it')
    check_writable(folder)


@contextmanager
def whole_folder(path: str) -> Iterator[str]:
    """Write a folder so that it is there either whole or not at all.

    Args:
        path (str): The folder, which does not exist yet; those on the way to
            it are made.

    Yields:
        str: An empty temporary folder to write to. It is renamed when the
        block ends, and removed when the block fails.
    """
    parent, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(parent, f'.tmp-{name}')
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def is_in(folder: str, name: str) -> bool:
    """Whether a folder has a file.

    Args:
        folder (str): The folder.
        name (str): The file's path in it. One that leads out of it, as a
            file may say, is no file.
    """
    path = os.path.normpath(name)
    return not path.startswith(
        (os.pardir, os.sep)) and os.path.isfile(os.path.join(folder, path))


def kept_result(folder: str, work: Callable[[], dict]) -> dict:
    """Do long work once, also where several commands want it done.

    Args:
        folder (str): The work's own folder. Its result is kept there, in
            ``result.json``.
        work (Callable): Gives the result, which JSON can hold. It is called
            where there is none yet, and while no other process is at it:
            where one is, that one's result is waited for.

    Returns:
        dict: The result.
    """
    path = os.path.join(folder, RESULT)
    if not os.path.exists(path):
        with _alone_with(folder):
            # Another process may have come first.
            if not os.path.exists(path):
                result = work()
                write_json(path, result)
    return read_json(path)


@contextmanager
def _alone_with(folder: str) -> Iterator[None]:
    parent, name = os.path.split(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    # Beside the folder, since work may remove what an interrupted one left
    # there, and hidden from a shell's patterns.
    lock = FileLock(os.path.join(parent, f'.{name}.lock'))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(
            f'{folder}: another process is at work there, waiting for it',
            file=sys.stderr,
            flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
