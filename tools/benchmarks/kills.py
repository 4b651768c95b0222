#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Kill a training again and again, and see that nothing is lost.

Each time it is killed by SIGKILL, at a random moment or, every third time,
while a checkpoint is being written, and resumed. In the end its last
checkpoint has to equal, bit by bit, that of a training that nobody killed.
"""
import argparse
import glob
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, Iterator, List, Set, Tuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from dspnet_mm.checkpoint import load_checkpoint
from dspnet_mm.cli import run
from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.versions import versions

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = os.path.join(ROOT, 'configs', 'dspnet',
                      'dspnet_resnet18-small_1xb32-coslr-40e_digits.py')
# A checkpoint by iteration, in the middle of epochs of 9 iterations.
EPOCHS, IMAGES, INTERVAL = 8, 300, 2


def start(work_dir: str) -> Tuple[int, int]:
    """Start a training, or resume it, in a process of its own.

    Returns:
        tuple[int, int]: The process, and a descriptor that gives a byte when
        it begins to train.
    """
    ready, begins = os.pipe()
    process = os.fork()
    if process:
        os.close(begins)
        return process, ready
    code = 1
    try:
        with open(os.path.join(work_dir, 'output.txt'), 'a') as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        cfg = Config.fromfile(CONFIG)
        cfg.train_cfg.max_epochs = EPOCHS
        cfg.train_dataloader.dataset.indices = IMAGES
        cfg.custom_hooks = []
        cfg.default_hooks.checkpoint.update(
            by_epoch=False, interval=INTERVAL, max_keep_ckpts=1)
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
        cfg.work_dir = work_dir
        cfg.resume = True
        runner = Runner.from_cfg(cfg)
        os.write(begins, b'!')
        runner.train()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the parent's is to be cleaned up here.
        os._exit(code)


def finished(process: int, wait: bool = False) -> bool:
    """Whether a training has come to its end.

    Raises:
        VerificationError: If it failed.
    """
    ended, status = os.waitpid(process, 0 if wait else os.WNOHANG)
    if ended and status:
        raise VerificationError('a training that was resumed failed: run it '
                                'again with --keep FOLDER and see output.txt')
    return bool(ended)


def unfinished(work_dir: str) -> Set[Tuple[str, int]]:
    """The checkpoints that are not whole yet, each with its time."""
    found = set()
    for path in glob.glob(os.path.join(work_dir, '.tmp-*.pth')):
        try:
            found.add((path, os.stat(path).st_mtime_ns))
        except FileNotFoundError:
            pass  # It has got its name.
    return found


def last_checkpoint(work_dir: str) -> dict:
    """What a training would be resumed from; empty if there is nothing."""
    path = os.path.join(work_dir, 'last_checkpoint')
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return load_checkpoint(file.read())


def train_and_kill(work_dir: str, kills: int, longest: float,
                   generator: random.Random) -> Iterator[Tuple[int, bool]]:
    """Train to the end, killed so many times on the way at most.

    Args:
        work_dir (str): A new folder.
        kills (int): How many times.
        longest (float): The longest that it runs before a random kill, in
            seconds.
        generator (Random): Where the moments come from.

    Yields:
        tuple[int, bool]: For each kill, the iteration to go on from, and
        whether a checkpoint was being written.
    """
    os.makedirs(work_dir)
    for kill in range(kills):
        aim_at_writing = kill % 3 == 2
        left_over = unfinished(work_dir)
        process, ready = start(work_dir)
        os.read(ready, 1)
        os.close(ready)
        deadline = time.monotonic() + generator.uniform(0, longest)
        while True:
            if finished(process):
                return
            if unfinished(work_dir) - left_over if aim_at_writing else (
                    time.monotonic() > deadline):
                break
            time.sleep(0.0002)
        if aim_at_writing:
            time.sleep(generator.uniform(0, 0.005))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            return
        checkpoint = last_checkpoint(work_dir)
        yield (checkpoint['meta']['iter'] if checkpoint else 0,
               bool(unfinished(work_dir) - left_over))
    finished(start(work_dir)[0], wait=True)


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same, bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--kills', type=int, default=30, help='how often (default: 30)')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the moments (default: 0)')
    parser.add_argument(
        '--keep', help='a new folder for the trainings (default: none stay)')
    parser.add_argument('--out', required=True, help='JSON to write')
    args = parser.parse_args()
    if args.kills < 1:
        raise InputError(f'--kills {args.kills} is not allowed: give 1 or '
                         'more')
    if args.keep and os.path.exists(args.keep):
        raise InputError(f'--keep {args.keep} exists: give a new folder')
    check_writable(args.out)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or temporary
        untouched = os.path.join(folder, 'untouched')
        os.makedirs(untouched)
        process, ready = start(untouched)
        os.read(ready, 1)
        begin = time.monotonic()
        finished(process, wait=True)
        # A kill for each eighth of the training or so.
        longest = (time.monotonic() - begin) / 4
        expected = last_checkpoint(untouched)
        generator = random.Random(args.seed)
        while_writing = trainings = 0
        went_on_from: List[int] = []
        while len(went_on_from) < args.kills:
            trainings += 1
            work_dir = os.path.join(folder, f'killed_{trainings}')
            for iteration, writing in train_and_kill(
                    work_dir, args.kills - len(went_on_from), longest,
                    generator):
                went_on_from.append(iteration)
                while_writing += writing
                print(
                    f'\rkill {len(went_on_from)} of {args.kills}',
                    end='',
                    file=sys.stderr,
                    flush=True)
            for key in ('state_dict', 'optimizer', 'param_schedulers'):
                if not equal(last_checkpoint(work_dir)[key], expected[key]):
                    raise VerificationError(
                        f'{key} of a training that was killed differs from '
                        "that of one that was not: the run's folder is "
                        f'killed_{trainings} (--keep)')
        print(file=sys.stderr)
    result = dict(
        kills_survived=len(went_on_from),
        while_writing=while_writing,
        went_on_from=went_on_from,
        trainings=trainings,
        seed=args.seed,
        iterations=expected['meta']['iter'],
        versions=versions())
    write_json(args.out, result)
    print(
        f'{len(went_on_from)} kills survived, {while_writing} of them while a '
        'checkpoint was being written')


if __name__ == '__main__':
    run(main)
