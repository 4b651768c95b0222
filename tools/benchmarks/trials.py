# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Trainings whose networks are evaluated, each kept once it is finished."""
import argparse
import copy
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from threading import Thread
from typing import (Callable, Dict, Iterator, List, NamedTuple, Optional,
                    Sequence, Tuple)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmselfsup.registry import DATASETS, HOOKS
from torch import nn

from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.evaluation import (ImageFormat, evaluation_dataset,
                                  extract_features, finetuned_accuracy,
                                  iterate, knn_accuracy, linear_accuracy, pick,
                                  pick_balanced)
from dspnet_mm.evaluation.probes import joint_linear_accuracies
from dspnet_mm.evaluation.report import PROBES, Features, labelled_datasets
from dspnet_mm.files import RESULT, kept_result
from dspnet_mm.models import SlimCLR, SupernetAlgorithm
from dspnet_mm.slimming import recalibrate, slim
from dspnet_mm.versions import versions

METRICS = dict(
    knn='kNN',
    linear='linear probe',
    finetuned_1='1 % of labels',
    finetuned_10='10 % of labels')
_LABELS = dict(finetuned_1=0.01, finetuned_10=0.1)
_K = 20
_BATCH_SIZE = 1024
_CALIBRATION_IMAGES = 1024
_FOLDS = 3
# Hooks that trainings cannot do without; all others look on, and take time.
_NEEDED_HOOKS = ('ClusterHook', )
# What trainings cost, see clock().
SECONDS = 'GPU seconds' if torch.cuda.is_available() else 'CPU seconds'
Labelled = Tuple[torch.Tensor, np.ndarray]
# Of the seeds, this one is for the choice of settings alone.
SETTING_SEED = 10000


def add_trial_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all comparisons of trainings have."""
    parser.add_argument(
        '--seeds',
        type=int,
        default=3,
        metavar='N',
        help='how many, at least 2 (default: %(default)s)')
    parser.add_argument(
        '--first-seed',
        type=int,
        default=0,
        metavar='SEED',
        help='the seeds are this one and those after it (default: '
        '%(default)s)')
    parser.add_argument(
        '--processes',
        type=int,
        default=1 if torch.cuda.is_available() else os.cpu_count(),
        metavar='N',
        help='trainings at a time, each on one thread (default: one for each '
        'core; 1 on a GPU)')
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='where the report goes and each finished training is kept: the '
        'same command goes on where it was stopped')


def check_trial_options(args: argparse.Namespace) -> None:
    """Look at what was given for them; ``seeds`` becomes a list.

    Raises:
        InputError: If a value is not allowed.
    """
    for name, least in (('seeds', 2), ('first_seed', 0), ('processes', 1)):
        value = getattr(args, name)
        if value < least:
            raise InputError(f'--{name.replace("_", "-")} {value} is not '
                             f'allowed: give at least {least}')
    args.seeds = list(range(args.first_seed, args.first_seed + args.seeds))


class Setting(NamedTuple):
    """What is chosen for each way of training.

    Args:
        rate (float): The learning rate.
        momentum (float, optional): Of the target network at the start.
            Defaults to None, as the config says.
    """
    rate: float
    momentum: Optional[float] = None

    def __str__(self) -> str:
        rate = f'learning rate {self.rate:g}'
        return rate if self.momentum is None else \
            f'{rate}, momentum {self.momentum:g}'


class Data(NamedTuple):
    """The images of a seed's trainings and evaluation.

    Args:
        place (str): 'digits', or a folder that holds train/CLASS and
            test/CLASS (or val/CLASS).
        images (int, optional): How many training images, drawn by the seed;
            None for all.
        seed (int): The seed. Of the digits it says which third is the test
            part.
    """
    place: str
    images: Optional[int]
    seed: int

    def pretraining(self) -> dict:
        """The config of what is trained on, but for its pipeline."""
        if self.place == 'digits':
            cfg = dict(type='EmbeddedDigits', split='train', fold=self._fold)
        else:
            folder = os.path.join(self.place, 'train')
            cfg = dict(type='ImageFolder', data_root=folder)
        if self.images is None:
            return cfg
        init_default_scope('mmselfsup')
        dataset = DATASETS.build(cfg)
        if self.images > len(dataset):
            raise InputError(f'{self.place} has {len(dataset)} training '
                             f'images, fewer than the {self.images} to train '
                             'on')
        return dict(cfg, indices=pick(dataset, self.images, self.seed))

    def evaluation(self, image_format: ImageFormat) -> List[Labelled]:
        """Normalised training and test images with their labels."""
        size = image_format.input_size
        if self.place == 'digits':
            sets = [
                evaluation_dataset(
                    dict(type='EmbeddedDigits', split=split, fold=self._fold),
                    size) for split in ('train', 'test')
            ]
        else:
            sets = labelled_datasets(self.place, size)
        chosen = [
            None if self.images is None else pick(sets[0], self.images,
                                                  self.seed), None
        ]
        loaded = []
        for dataset, indices in zip(sets, chosen):
            inputs, labels = zip(*iterate(dataset, image_format, indices))
            loaded.append((torch.cat(inputs), np.concatenate(labels)))
        return loaded

    def accuracies(self, model: nn.Module, image_format: ImageFormat,
                   subnet: str) -> Dict[str, Dict[str, float]]:
        """How good a model's networks are, see :func:`evaluate`."""
        images = _evaluation_images(self, image_format)
        accuracies, features = {}, []
        for name, backbone in networks(model, subnet):
            features.append(calibrated_features(backbone, *images, self.seed))
            accuracies[name] = evaluate(backbone, features[-1], *images,
                                        self.seed)
        for probe in PROBES if isinstance(model, SlimCLR) else ():
            jointly = joint_linear_accuracies(*zip(*features),
                                              probe == 'switchable', self.seed)
            for row, accuracy in zip(accuracies.values(), jointly):
                row[f'linear_{probe}'] = accuracy
        return accuracies

    @property
    def _fold(self) -> int:
        return self.seed % _FOLDS


class Job(NamedTuple):
    """A training.

    Args:
        name (str): What it is called.
        cfg (Config): What is trained.
        input_size (int): Height and width of the images to evaluate on.
        data (Data): What it is trained and evaluated on; anything with its
            ``seed``, ``pretraining`` and ``accuracies``.
        subnet (str): Which network is evaluated. Defaults to '', all that
            the family desires.
    """
    name: str
    cfg: Config
    input_size: int
    data: Data
    subnet: str = ''

    @property
    def folder(self) -> str:
        """A name that no other training has."""
        everything = repr((self.cfg.to_dict(), self[2:]))
        digest = hashlib.sha256(everything.encode()).hexdigest()
        return f'{self.name}-{digest[:12]}'

    def finished(self, folder: str) -> bool:
        """Whether its result is kept in its own folder in this one."""
        return os.path.exists(os.path.join(folder, self.folder, RESULT))


@HOOKS.register_module()
class CostHook(Hook):
    """Counts the seconds of a training, and those that make the views.

    On a CPU, what the process computed; on a GPU, the clock's. A training
    that is resumed goes on counting.
    """
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seconds = 0.
        self.views = 0.

    def before_train(self, runner: Runner) -> None:
        self._start = clock()
        self._loaded = self._start
        preprocessor = runner.model.data_preprocessor
        preprocessor.register_forward_pre_hook(self._before_views)
        preprocessor.register_forward_hook(self._after_views)

    def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self.views += clock() - self._loaded

    def _before_views(self, preprocessor: nn.Module, *args) -> None:
        self._views_begin = clock()

    def _after_views(self, preprocessor: nn.Module, *args) -> None:
        self.views += clock() - self._views_begin

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._loaded = clock()
        self.seconds += self._loaded - self._start
        self._start = self._loaded

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['cost'] = self.cost

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.seconds = checkpoint['cost']['seconds']
        self.views = self.seconds - checkpoint['cost']['without_loading']

    @property
    def cost(self) -> Dict[str, float]:
        """The seconds so far, with and without loading and augmenting."""
        return dict(
            seconds=self.seconds, without_loading=self.seconds - self.views)


@HOOKS.register_module()
class ProgressHook(Hook):
    """Tells each fifth of a training on stderr, which tools have in common.

    Args:
        name (str): What the training is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def after_train_epoch(self, runner: Runner) -> None:
        done, total = runner.epoch + 1, runner.max_epochs
        if 5 * done // total > 5 * (done - 1) // total:
            say(f'{self.name}: epoch {done} of {total}')


def say(text: str) -> None:
    """Tell how far it is, at once."""
    print(text, file=sys.stderr, flush=True)


def clock() -> float:
    """Seconds: the process's on a CPU, the clock's where there is a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def train(job: Job, folder: str) -> Tuple[nn.Module, Dict[str, float]]:
    """Train, or go on where a training was interrupted.

    Args:
        job (Job): What to train.
        folder (str): Where its checkpoints and log go.

    Returns:
        tuple[Module, dict]: The algorithm, and its cost in seconds.
    """
    cfg = copy.deepcopy(job.cfg)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(
        **job.data.pretraining(), pipeline=pipeline)
    # This process does all, so that its seconds are all.
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.randomness = dict(seed=job.data.seed)
    cfg.custom_hooks = [
        *(dict(hook, num_workers=0)
          for hook in cfg.custom_hooks if hook.type in _NEEDED_HOOKS),
        dict(type='CostHook'),
        dict(type='ProgressHook', name=job.name)
    ]
    # It looks at supernets alone, and takes time.
    cfg.default_hooks.pop('gradients', None)
    cfg.default_hooks.logger.interval = 50
    cfg.default_hooks.checkpoint.update(interval=5, max_keep_ckpts=1)
    cfg.visualizer.vis_backends = []
    cfg.work_dir = folder
    cfg.resume = True
    cfg.log_level = 'WARNING'
    # A second runner in this process would write where the first did.
    cfg.experiment_name = cfg.visualizer.name = f'{job.name}-{time.time_ns()}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    hook, = (hook for hook in runner.hooks if isinstance(hook, CostHook))
    return runner.model, hook.cost


def networks(model: nn.Module, subnet: str) -> Iterator[Tuple[str, nn.Module]]:
    """The trained plain networks, by name."""
    if not isinstance(model, SupernetAlgorithm):
        yield subnet, model.backbone
        return
    device = next(model.parameters()).device
    names = [subnet] if subnet else model.family.desired
    for name in names:
        yield name, slim(model.backbone,
                         model.as_trained(model.family[name])).to(device)


def calibrated_features(backbone: nn.Module, train: Labelled, test: Labelled,
                        seed: int) -> List[Features]:
    """A trained network's features of training and of test images.

    Its batch norm is calibrated on training images first, and stays so: on
    both sides of a comparison alike.
    """
    device = next(backbone.parameters()).device
    # At random: a folder's images come class by class.
    chosen = pick(train[1], _CALIBRATION_IMAGES, seed)
    recalibrate(backbone, [train[0][chosen].to(device)])
    backbone.eval()
    return [
        extract_features(
            backbone,
            zip(
                inputs.split(_BATCH_SIZE),
                np.split(labels, range(_BATCH_SIZE, len(labels),
                                       _BATCH_SIZE))))
        for inputs, labels in (train, test)
    ]


def evaluate(backbone: nn.Module, features: List[Features], train: Labelled,
             test: Labelled, seed: int) -> Dict[str, float]:
    """All accuracies of a trained network, by metric."""
    accuracies = dict(
        knn=knn_accuracy(*features, k=_K), linear=linear_accuracy(*features))
    for metric, fraction in _LABELS.items():
        few = pick_balanced(train[1], fraction, seed)
        accuracies[metric] = finetuned_accuracy(backbone,
                                                (train[0][few], train[1][few]),
                                                test, seed)
    return accuracies


@lru_cache(maxsize=1)
def _evaluation_images(data: Data, image_format: ImageFormat):
    # Decoding takes longer than evaluating a small network.
    return data.evaluation(image_format)


def run_job(job: Job, folder: str) -> dict:
    """Train and evaluate, unless that is done already.

    Args:
        job (Job): What to train.
        folder (str): Where the job's own folder is, or is made.

    Returns:
        dict: What ``result.json`` in the job's folder holds: ``cost``,
        ``accuracies`` by network and metric, and ``versions``.
    """
    folder = os.path.join(folder, job.folder)

    def work() -> dict:
        model, cost = train(job, folder)
        image_format = ImageFormat.from_config(job.cfg.model.data_preprocessor,
                                               job.input_size)
        accuracies = job.data.accuracies(model, image_format, job.subnet)
        return dict(cost=cost, accuracies=accuracies, versions=versions())

    return kept_result(folder, work)


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that compute on one thread each."""
    pool = ProcessPoolExecutor(
        processes,
        multiprocessing.get_context('spawn'),
        initializer=_begin_worker)
    try:
        # Where something failed, what runs is finished and kept.
        with pool:
            yield pool
    except BrokenProcessPool:
        raise VerificationError(
            'a process that trains was ended from outside, perhaps for want '
            'of memory: the same command goes on, and fewer --processes need '
            'less')


def _begin_worker() -> None:
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C ends it at once, instead of the training that it happens to do.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_with_parent() -> None:
    # However it ended: else a training would go on that nobody waits for.
    multiprocessing.parent_process().join()
    os._exit(1)


def run_jobs(jobs: List[Job], folder: str,
             pool: ProcessPoolExecutor) -> List[dict]:
    """Run trainings, several at a time, and tell how far it is.

    Args:
        jobs (list[Job]): The trainings.
        folder (str): Where what is finished is kept.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        list[dict]: The result of each, see :func:`run_job`.
    """
    kept = sum(job.finished(folder) for job in jobs)
    begin = time.monotonic()
    futures = [pool.submit(run_job, job, folder) for job in jobs]
    names = dict(zip(futures, (job.name for job in jobs)))
    try:
        for number, future in enumerate(as_completed(futures), 1):
            seconds = future.result()['cost']['seconds']
            text = (f'[{number}/{len(jobs)}] {names[future]}: trained in '
                    f'{seconds:.0f} {SECONDS}, and evaluated')
            # What was kept takes no time, and comes first.
            if kept < number < len(jobs):
                each = (time.monotonic() - begin) / (number - kept)
                left = each * (len(jobs) - number) / 60
                text += f'; about {left:.0f} minutes left'
            say(text)
    finally:
        for future in futures:
            future.cancel()
    return [future.result() for future in futures]


def run_groups(groups: Sequence[List[Job]], folder: str,
               pool: ProcessPoolExecutor) -> List[List[dict]]:
    """The results of groups of trainings, see :func:`run_jobs`."""
    results = iter(run_jobs(list(chain(*groups)), folder, pool))
    return [[next(results) for _ in jobs] for jobs in groups]


def choose_setting(name: str, accuracies: Callable[[List[Setting]],
                                                   List[float]],
                   rates: Sequence[float], momenta: Sequence[float],
                   usual: float) -> Tuple[Setting, List[dict]]:
    """The best learning rate, then with it the best momentum.

    Args:
        name (str): What is chosen for.
        accuracies (callable): Trains with each setting and says how good it
            is.
        rates (Sequence[float]): Those to try.
        momenta (Sequence[float]): Those of the target network; none leave it
            as the config says.
        usual (float): The config's, which is tried as well.

    Returns:
        tuple[Setting, list[dict]]: The best, and all that were tried with the
        accuracy of each; where there is nothing to choose, none is.
    """
    tried: Dict[Setting, float] = {}

    def best_of(settings: List[Setting]) -> Setting:
        if len(settings) == 1:
            return settings[0]
        tried.update(zip(settings, accuracies(settings)))
        return max(settings, key=tried.__getitem__)

    say(f'{name}: learning rates {", ".join(map(str, rates))}')
    if momenta:
        best = best_of([Setting(rate, usual) for rate in rates])
        momenta = tuple(dict.fromkeys((usual, *momenta)))
        say(f'{name}: {best}; momenta {", ".join(map(str, momenta))}')
        best = best_of([best._replace(momentum=each) for each in momenta])
    else:
        best = best_of([Setting(rate) for rate in rates])
    return best, [
        dict(setting._asdict(), accuracy=accuracy)
        for setting, accuracy in tried.items()
    ]
