# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Trainings whose networks are evaluated, each kept once it is finished."""
import argparse
import hashlib
import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain, product
from statistics import mean, median
from threading import Lock, Thread
from typing import (Any, Callable, Dict, Iterable, Iterator, List, NamedTuple,
                    Optional, Sequence, Tuple)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmselfsup.registry import DATASETS, HOOKS
from PIL import Image
from torch import nn

from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.evaluation import (ImageFormat, evaluation_dataset,
                                  extract_features, finetuned_accuracy,
                                  iterate, knn_accuracy, linear_accuracy, pick,
                                  pick_balanced)
from dspnet_mm.evaluation.probes import joint_linear_accuracies
from dspnet_mm.evaluation.report import (PROBES, Features, class_folders,
                                         labelled_datasets)
from dspnet_mm.files import RESULT, kept_result, read_json, write_json
from dspnet_mm.models import SlimCLR, SupernetAlgorithm
from dspnet_mm.slimming import CALIBRATION_IMAGES, recalibrate, slim
from dspnet_mm.versions import merged_versions, versions

METRICS = dict(
    knn='kNN',
    linear='linear probe',
    finetuned_1='1 % of labels',
    finetuned_10='10 % of labels')
_LABELS = dict(finetuned_1=0.01, finetuned_10=0.1)
_K = 20
_BATCH_SIZE = 1024
_FOLDS = 3
# EXIF's tag; above 4, the image lies on its side.
_ORIENTATION = 0x0112
# Hooks that trainings cannot do without; all others look on, and take time.
_NEEDED_HOOKS = ('ClusterHook', )
# What trainings cost, see clock().
SECONDS = 'GPU seconds' if torch.cuda.is_available() else 'CPU seconds'
# In configs, where the folders of all trainings are: so that a training is the
# same one wherever they are kept.
TRAININGS = '{trainings}'
Labelled = Tuple[torch.Tensor, np.ndarray]
_RESTORES = Lock()
# What they cost is measured by as many trainings of so many epochs each, in
# which all phases have their part.
COST_RUNS, COST_EPOCHS = 3, 2
# Seeds from this one on are for the choice of settings alone.
_SETTING_SEED = 10000


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
    if not is_reported(args.seeds[-1]):
        raise InputError(f'--first-seed {args.first_seed} is not allowed: '
                         f'settings are chosen on seeds from {_SETTING_SEED} '
                         'on, give less')


def report_stem(args: argparse.Namespace, *words: str) -> str:
    """The path of a comparison's files, but for what they end in.

    Args:
        args (Namespace): The command's, with its ``out`` and its ``budget``,
            of which ``full`` goes without saying.
        words (str): The comparison, and what it is of.
    """
    name, *others = words
    budget = [] if args.budget == 'full' else [args.budget]
    return os.path.join(args.out, '_'.join([name, *budget, *others]))


def setting_seeds(number: int) -> List[int]:
    """Those that settings are chosen by, which are not reported."""
    return list(range(_SETTING_SEED, _SETTING_SEED + number))


def is_reported(seed: int) -> bool:
    """Whether a seed is none that settings are chosen by."""
    return seed < _SETTING_SEED


def check_seeds(path: str, report: dict, seeds: Sequence[int]) -> None:
    """Refuse to replace a report of other or more seeds.

    Args:
        path (str): The report's.
        report (dict): What it says.
        seeds (Sequence[int]): Those of what would take its place; more of the
            same may.

    Raises:
        InputError: If its seeds are not the first of these.
    """
    earlier = report['seeds']
    first, now = earlier[0], seeds[0]
    if first != now:
        raise InputError(f'{path} is a report of seed {first} and those after '
                         f'it, and would be one of seed {now} and those after '
                         'it: give another --out')
    if len(earlier) > len(seeds):
        raise InputError(
            f'{path} is a report of {len(earlier)} seeds, and '
            f'would be one of {len(seeds)}: give as many --seeds, '
            'or another --out')


class Idea(NamedTuple):
    """What is changed in a config, and what that is."""
    text: str
    options: Dict[str, Any]


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
        jointly = isinstance(model, SlimCLR) and is_reported(self.seed)
        for probe in PROBES if jointly else ():
            for row, accuracy in zip(
                    accuracies.values(),
                    joint_linear_accuracies(*zip(*features),
                                            probe == 'switchable', self.seed)):
                row[f'linear_{probe}'] = accuracy
        return accuracies

    @property
    def _fold(self) -> int:
        return self.seed % _FOLDS


def check_images(place: str, folder: str) -> None:
    """Refuse images that trainings could not be compared on.

    Args:
        place (str): See :class:`Data`.
        folder (str): Where trainings are kept, and what images they are of.

    Raises:
        InputError: If training images differ in size, which the configs'
            batches do not allow, or the images are others than those that
            what is kept was trained on.
    """
    if place == 'digits':
        return
    init_default_scope('mmselfsup')
    say(f'{place}: looking at the images')
    digest, first = hashlib.sha256(), None
    for part, root in zip(('train', 'test'), class_folders(place)):
        dataset = DATASETS.build(dict(type='ImageFolder', data_root=root))
        for index in range(len(dataset)):
            path = dataset.get_data_info(index)['img_path']
            name = f'{part}/{dataset.name_of(index)}'
            digest.update(f'{name} {os.path.getsize(path)}\n'.encode())
            if part == 'test':
                # They are resized.
                continue
            try:
                with Image.open(path) as image:
                    size = image.size
                    # As cameras that were held upright say, and loading does.
                    if 'exif' in image.info and \
                            image.getexif().get(_ORIENTATION, 1) > 4:
                        size = size[::-1]
            except Exception:
                # As many as libraries have; it is told when it is loaded.
                continue
            first = first or (path, size)
            if size != first[1]:
                raise InputError(
                    '{} has {}x{} pixels and {} {}x{}: give training images '
                    'of one size'.format(first[0], *first[1], path, *size))
    found = dict(images=place, sha256=digest.hexdigest())
    name = hashlib.sha256(place.encode()).hexdigest()[:12]
    path = os.path.join(folder, f'images-{name}.json')
    kept = read_json(path)
    if kept and kept != found:
        raise InputError(f'the images in {place} are others than when the '
                         f'trainings in {folder} were made: give another '
                         '--out, or the images of then')
    if not kept:
        write_json(path, found)


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
        idea (str): What messages say besides, where trainings of one name
            differ. Defaults to '', nothing.
    """
    name: str
    cfg: Config
    input_size: int
    data: Data
    subnet: str = ''
    idea: str = ''

    def __str__(self) -> str:
        return f'{self.idea}, {self.name}' if self.idea else self.name

    @property
    def folder(self) -> str:
        """A name that no other training has."""
        everything = repr((self.cfg.to_dict(), self[2:5]))
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
        self.before_epochs = 0.

    def before_train(self, runner: Runner) -> None:
        self._start = clock()
        self._loaded = self._epoch_begins = self._start
        preprocessor = runner.model.data_preprocessor
        preprocessor.register_forward_pre_hook(self._before_views)
        preprocessor.register_forward_hook(self._after_views)

    def after_train_epoch(self, runner: Runner) -> None:
        self._epoch_begins = clock()

    def before_train_epoch(self, runner: Runner) -> None:
        # Behind all other hooks, of which ClusterHook takes its time.
        self.before_epochs += clock() - self._epoch_begins

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
        self.before_epochs = checkpoint['cost']['before_epochs']

    @property
    def cost(self) -> Dict[str, float]:
        """The seconds so far.

        ``seconds``, all of them; ``without_loading`` and augmenting; and what
        hooks took of all ``before_epochs``, where images are clustered.
        """
        return dict(
            seconds=self.seconds,
            without_loading=self.seconds - self.views,
            before_epochs=self.before_epochs)


_SPREAD = 'spread_'


@HOOKS.register_module()
class SpreadHook(Hook):
    """Averages the spread of each sub-network's projections over an epoch.

    A measure of collapse that methods on a supernet log with each iteration,
    see :func:`dspnet_mm.models.algorithms.base.spread`.
    """

    def __init__(self) -> None:
        self._spreads: Dict[str, List[torch.Tensor]] = {}
        self._loaded: Dict[str, float] = {}

    def before_train_epoch(self, runner: Runner) -> None:
        self._spreads.clear()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        for name, value in outputs.items():
            if name.startswith(_SPREAD):
                label = name[len(_SPREAD):]
                self._spreads.setdefault(label, []).append(value)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['spreads'] = self.means

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._loaded = checkpoint.get('spreads', {})

    @property
    def means(self) -> Dict[str, float]:
        """Of the last epoch, from 0 (collapse) to about 1, by sub-network."""
        if not self._spreads:
            return self._loaded
        return {
            label: torch.stack(values).mean().item()
            for label, values in self._spreads.items()
        }


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Goes on drawing as an uninterrupted training would have.

    MMSelfSup's algorithms let views be drawn by PyTorch's generator, whose
    state no checkpoint holds; those on a supernet draw by the iteration.
    """

    def __init__(self) -> None:
        self._state: Optional[torch.Tensor] = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['random_state'] = torch.get_rng_state()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._state = checkpoint.get('random_state')

    def before_train_epoch(self, runner: Runner) -> None:
        if self._state is not None:
            torch.set_rng_state(self._state.cpu())
            self._state = None


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


def _placed(value: Any, folder: str) -> Any:
    """A config with the place of all trainings in it."""
    if isinstance(value, dict):
        return {key: _placed(each, folder) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(each, folder) for each in value)
    return value.replace(TRAININGS, folder) if isinstance(value, str) \
        else value


def train(job: Job, folder: str) -> Tuple[nn.Module, Dict[str, Any]]:
    """Train, or go on where a training was interrupted.

    Args:
        job (Job): What to train.
        folder (str): Where its checkpoints and log go.

    Returns:
        tuple[Module, dict]: The algorithm; and ``cost``, in seconds, and
        ``spreads``, see :class:`SpreadHook`.
    """
    cfg = Config(_placed(job.cfg.to_dict(), os.path.dirname(folder)))
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(
        **job.data.pretraining(), pipeline=pipeline)
    # This process does all, so that its seconds are all.
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.randomness = dict(seed=job.data.seed)
    cfg.custom_hooks = [
        *(dict(hook, num_workers=0)
          for hook in cfg.custom_hooks if hook.type in _NEEDED_HOOKS),
        dict(type='SpreadHook'),
        dict(type='CostHook'),
        dict(type='RandomStateHook'),
        dict(type='ProgressHook', name=str(job))
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
    try:
        runner.train()
    except FloatingPointError as error:
        # A supernet ends itself; others train on with what is not finite.
        say(f'{job}: {error}')
        for parameter in runner.model.parameters():
            parameter.data.fill_(math.nan)
    hooks = {type(hook): hook for hook in runner.hooks}
    return runner.model, dict(
        cost=hooks[CostHook].cost, spreads=hooks[SpreadHook].means)


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
    chosen = pick(train[1], CALIBRATION_IMAGES, seed)
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


def are_finite(features: Features, seed: int) -> bool:
    """Whether a training gave features that can be evaluated.

    Raises:
        VerificationError: If one that is reported did not.
    """
    if np.isfinite(features[0]).all():
        return True
    if is_reported(seed):
        raise VerificationError(f'the features of seed {seed} are not finite: '
                                'its training diverged')
    return False


def evaluate(backbone: nn.Module, features: List[Features], train: Labelled,
             test: Labelled, seed: int) -> Dict[str, float]:
    """The accuracies of a trained network, by metric.

    Settings are chosen on frozen features: on their seeds nothing is
    fine-tuned. One by which a training diverges is as bad as can be.

    Raises:
        VerificationError: If a training that is reported diverged.
    """
    if not all(are_finite(each, seed) for each in features):
        return dict(knn=0., linear=0.)
    accuracies = dict(
        knn=knn_accuracy(*features, k=_K), linear=linear_accuracy(*features))
    if not is_reported(seed):
        return accuracies
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
        dict: What ``result.json`` in the job's folder holds: ``cost`` and
        ``spreads``, see :func:`train`, ``accuracies`` by network and metric,
        and ``versions``, with the GPU's name where it was trained on one.
    """
    folder = os.path.join(folder, job.folder)

    def work() -> dict:
        model, measured = train(job, folder)
        image_format = ImageFormat.from_config(job.cfg.model.data_preprocessor,
                                               job.input_size)
        try:
            accuracies = job.data.accuracies(model, image_format, job.subnet)
        except VerificationError as error:
            raise VerificationError(f'{job}: {error}')
        return dict(
            measured,
            accuracies=accuracies,
            versions=dict(versions(), **_accelerator()))

    return kept_result(folder, work)


def _accelerator() -> Dict[str, str]:
    return dict(gpu=torch.cuda.get_device_name()) \
        if torch.cuda.is_available() else {}


def trained_with(of_each: Sequence[Dict[str, str]]) -> Dict[str, str]:
    """The versions of what trained, wherever that was.

    Args:
        of_each (Sequence[dict]): ``versions`` of each result, see
            :func:`run_job`.

    Returns:
        dict: By name; where results differ in one, all of them.

    Raises:
        InputError: If some were trained on a GPU and others were not: their
            seconds are not to be compared.
    """
    if len({'gpu' in each for each in of_each}) > 1:
        raise InputError('some of these trainings were done on a GPU and '
                         'others on a CPU: give each kind an --out of its own')
    return merged_versions(of_each)


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

    Raises:
        VerificationError: If some diverged; the others are finished first.
    """
    kept = sum(job.finished(folder) for job in jobs)
    begin = time.monotonic()
    futures = [pool.submit(run_job, job, folder) for job in jobs]
    names = dict(zip(futures, map(str, jobs)))
    try:
        for number, future in enumerate(as_completed(futures), 1):
            if isinstance(future.exception(), VerificationError):
                say(f'[{number}/{len(jobs)}] {future.exception()}')
                continue
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


def measure_costs(stages: Sequence[List[Job]], folder: str,
                  pool: ProcessPoolExecutor) -> List[List[Dict[str, float]]]:
    """What trainings cost, all measured in one run.

    Their own seconds do not compare where some were done on another machine,
    or beside other work.

    Args:
        stages (Sequence[list[Job]]): Short trainings; those that use files
            of others come in a later stage.
        folder (str): Where what is finished is kept: all of them together,
            or nothing.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        list[list[dict]]: Of each training, see :attr:`CostHook.cost`; the
        medians of ``COST_RUNS`` of it, which take turns.
    """
    names = repr([job.folder for job in chain(*stages)])
    digest = hashlib.sha256(names.encode()).hexdigest()
    folder = os.path.join(folder, f'costs-{digest[:12]}')

    def run() -> List[List[Dict[str, float]]]:
        place = os.path.join(folder, 'run')
        shutil.rmtree(place, ignore_errors=True)
        cost_of = partial(_cost_of, folder=place)
        try:
            if torch.cuda.is_available():
                # The clock's time, which others beside it would lengthen.
                return [[pool.submit(cost_of, job).result() for job in jobs]
                        for jobs in stages]
            return [list(pool.map(cost_of, jobs)) for jobs in stages]
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def work() -> dict:
        say(f'costs: {sum(map(len, stages))} short trainings, '
            f'{COST_RUNS} times')
        return dict(runs=[run() for _ in range(COST_RUNS)])

    runs = kept_result(folder, work)['runs']
    return [[{
        key: median(cost[key] for cost in costs)
        for key in costs[0]
    } for costs in zip(*stage)] for stage in zip(*runs)]


def _cost_of(job: Job, folder: str) -> Dict[str, float]:
    return train(job, os.path.join(folder, job.folder))[1]['cost']


def run_groups(groups: Sequence[List[Job]], folder: str,
               pool: ProcessPoolExecutor) -> List[List[dict]]:
    """The results of groups of trainings, see :func:`run_jobs`."""
    results = iter(run_jobs(list(chain(*groups)), folder, pool))
    return [[next(results) for _ in jobs] for jobs in groups]


def restore(makers: Iterable[Job],
            users: Iterable[Job],
            folder: str,
            pool: ProcessPoolExecutor,
            also: Iterable[str] = ()) -> None:
    """Train again what others use a file of that is missing.

    A result that was copied from elsewhere comes without its checkpoint.

    Args:
        makers (Iterable[Job]): Trainings that are finished.
        users (Iterable[Job]): Trainings that may use files of theirs, in
            configs as ``{trainings}/FOLDER/FILE``. What is finished uses none
            any more.
        folder (str): Where finished trainings are kept.
        pool (ProcessPoolExecutor): From :func:`workers`.
        also (Iterable[str]): Further files, ``FOLDER/FILE``, that are needed.
            Defaults to none.
    """
    used = {
        *also, *(os.path.relpath(text, TRAININGS)
                 for job in users if not job.finished(folder)
                 for text in _strings(job.cfg.to_dict())
                 if text.startswith(TRAININGS))
    }
    # Threads whose users want the same wait for each other.
    with _RESTORES:
        missing = {
            os.path.dirname(path)
            for path in used if not os.path.exists(os.path.join(folder, path))
        }
        lost = [job for job in makers if job.folder in missing]
        for job in lost:
            if job.finished(folder):
                say(f'{job.name} is trained again: of it, a file is missing')
            # Another command may have been faster.
            with suppress(FileNotFoundError):
                os.remove(os.path.join(folder, job.folder, RESULT))
        if lost:
            run_jobs(lost, folder, pool)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def choose_setting(name: str,
                   accuracies: Callable[[List[Setting], List[int]],
                                        List[List[float]]],
                   rates: Sequence[float],
                   momenta: Sequence[float],
                   numbers: Sequence[int],
                   widen: bool = False) -> Tuple[Setting, List[dict]]:
    """The best learning rate and momentum, by successive halving.

    Each rate is tried with each momentum on few seeds, and the better half of
    them on more (arXiv 1502.07943): what is best of many on few is mostly
    lucky. The alternative, first the rate and then the momentum, takes fewer
    trainings, but misses pairs that are best only together.

    Args:
        name (str): What is chosen for.
        accuracies (callable): Trains with each setting on each seed and says
            how good each is, by setting and seed.
        rates (Sequence[float]): Those to try.
        momenta (Sequence[float]): Those of the target network; none leave it
            as the config says.
        numbers (Sequence[int]): Of seeds that all are tried on, half of them,
            and so on, while there is a choice.
        widen (bool): Where the best rate is the lowest or the highest, try
            half or twice of it with each momentum on as many seeds as the
            best, and go on while that is better: a list that ends too early
            would hold back what needs more. Defaults to False.

    Returns:
        tuple[Setting, list[dict]]: The best, and all that were tried, each
        with its mean accuracy and those by seed; where there is nothing to
        choose, none is.
    """
    settings = [
        Setting(rate, momentum)
        for rate, momentum in product(rates, momenta or [None])
    ]
    if len(settings) == 1:
        return settings[0], []
    say(f'{name}: learning rates {", ".join(map(str, rates))}'
        f'{"; momenta " if momenta else ""}{", ".join(map(str, momenta))}')
    tried: Dict[Setting, List[float]] = {}
    left = settings
    for number in numbers:
        tried.update(zip(left, accuracies(left, setting_seeds(number))))
        left.sort(key=lambda setting: mean(tried[setting]), reverse=True)
        best, left = left[0], left[:math.ceil(len(left) / 2)]
        if len(left) == 1:
            break
    ends = {min(rates): 0.5, max(rates): 2}
    while widen and best.rate in ends:
        factor = ends[best.rate]
        further = best.rate * factor
        settings = [Setting(further, each) for each in momenta or [None]]
        say(f'{name}: {best} is at the end of the list, trying {further:g}')
        seeds = setting_seeds(len(tried[best]))
        tried.update(zip(settings, accuracies(settings, seeds)))
        ends = {further: factor}
        best = max([best, *settings], key=lambda each: mean(tried[each]))
    say(f'{name}: {best}')
    return best, [
        dict(setting._asdict(), accuracy=mean(by_seed), by_seed=by_seed)
        for setting, by_seed in sorted(tried.items())
    ]
