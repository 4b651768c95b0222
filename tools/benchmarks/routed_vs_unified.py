#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Compare SDR's routed sub-networks with a unified network of their size.

Both learn from the same mixture of worlds, at about the same cost: the unified
network with more epochs. For each task, SDR hands over the sub-network that
routing finds by the task's training images, its own unified network among
them. SDR is also trained without its phases, without its distillation, without
both and with clusters drawn at random, and the unified network on halves of
the mixture, which says whether what else is learned from matters at all. For
SDR and for the unified network, the learning rate and the momentum of the
target network are the best pair from the same lists on seeds that are not
reported, by the tasks' training images. Costs are those of training, SDR's
with its clusters, without the routing that each task needs, all measured in
one run.
``--alternatives`` trains SDR with other choices as well, by its setting.

All seeds share the mixture and its tasks: standard errors are of training. The
best sub-network in hindsight is the best on test images, so a little of its
lead is luck.
"""
import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from statistics import mean
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from matplotlib.figure import Figure
from methods import OF_ANY, read
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmselfsup.registry import DATASETS
from result_tables import results_table
from torch import nn
from trials import (SECONDS, TRAININGS, Idea, Job, Setting, add_trial_options,
                    are_finite, check_seeds, check_trial_options,
                    choose_setting, measure_costs, networks, report_stem,
                    restore, run_groups, run_jobs, say, setting_seeds,
                    trained_with, workers)

from dspnet_mm.cli import command_line, run
from dspnet_mm.clustering import backbone_of
from dspnet_mm.datasets import read_clusters, write_clusters
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import (ImageFormat, extract_features, iterate,
                                  knn_accuracy, linear_accuracy, pick)
from dspnet_mm.evaluation.report import labelled_datasets
from dspnet_mm.files import check_writable, whole_file, write_json
from dspnet_mm.grouped_family import UNIFIED, GroupedResNetFamily
from dspnet_mm.means import mean_and_error
from dspnet_mm.models import SDR
from dspnet_mm.models.backbones import build_family
from dspnet_mm.routing import METRICS as ROUTING
from dspnet_mm.slimming import CALIBRATION_IMAGES, recalibrate

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIG = os.path.join(ROOT, 'configs', 'sdr',
                      'sdr_resnet18-small_1xb32-coslr-48e_mixture.py')
METRICS = dict(knn='kNN', linear='linear probe')
# What a network is routed by, unless that is what is compared.
ROUTED_BY = 'knn'


class Budget(NamedTuple):
    """How much is trained; so many epochs that both cost about the same."""
    unified_epochs: int
    sdr_epochs: int
    rates: Tuple[float, ...]
    # Of the target network; none leaves it as the config says.
    momenta: Tuple[float, ...]
    # How many seeds all settings are tried on, the better half of them, ...
    setting_seeds: Tuple[int, ...] = (1, )
    # Whether rates beyond these are tried where the best is at an end.
    widen: bool = False
    # What costs are measured in: that part of both epochs.
    cost_part: int = 1


BUDGETS = dict(
    quick=Budget(5, 4, (0.06, ), ()),
    full=Budget(
        56, 48, (0.015, 0.03, 0.06), (0.9, 0.99), widen=True, cost_part=4))
# The unified network that SDR is compared with; SDR has one of its own.
ALONE = 'alone'
# SDR, and without one of its parts.
PARTS = {
    'sdr': 'SDR',
    'no-phases': 'all sub-networks part at once, with the same clusters',
    'no-distillation': 'nothing is learned from the unified network',
    'neither': 'both of these left out',
    'random-clusters': 'clusters of the same sizes, of images drawn at random',
}


def two_levels(*phases: dict) -> Dict[str, Any]:
    """Four clusters, of which pairs share the group of the last stage."""
    return {
        'model.family.base_channels': 12,
        'model.family.num_groups': 2,
        'model.family.levels': 2,
        'train_dataloader.batch_sampler.num_groups': 2,
        'train_dataloader.batch_sampler.phases': list(phases)
    }


# Their networks are as large as SDR's.
ALTERNATIVES = {
    'part-late':
    Idea(
        'the sub-networks part at half of the training', {
            'train_dataloader.batch_sampler.phases':
            [dict(levels=0, until=0.5),
             dict(levels=1, until=1)]
        }),
    'two-levels':
    Idea(
        'four sub-networks: two part first, and each of them again',
        two_levels(
            dict(levels=0, until=0.25), dict(levels=1, until=0.5),
            dict(levels=2, until=1))),
    'two-levels-at-once':
    Idea('four sub-networks, which all part at once',
         two_levels(dict(levels=0, until=0.25), dict(levels=2, until=1))),
    'share-more':
    Idea('three quarters of the channels are shared, not half', {
        'model.family.base_channels': 12,
        'model.family.shared_channels': 6
    }),
    'share-less':
    Idea('a quarter of the channels is shared, not half', {
        'model.family.base_channels': 20,
        'model.family.shared_channels': 2
    }),
    'balanced':
    Idea('clusters of one size', {'custom_hooks.1.balanced': True}),
    'distill-all':
    Idea("the whole target is the unified network's",
         {'model.distillation_weight': 1.}),
}
WORLDS = ('digits', 'vehicles', 'animals', 'cells')
PHOTOGRAPHS, SHAPES = WORLDS[1:3], WORLDS[::3]
# What a unified network is trained on to see whether the rest matters: the
# worlds, how many times the epochs, and how it is told. Half of the images
# make half as many steps.
HALVES = {
    'photographs': (PHOTOGRAPHS, 1, 'photographs'),
    'photographs-longer': (PHOTOGRAPHS, 2, 'photographs, as many steps'),
    'shapes': (SHAPES, 1, 'shapes'),
    'shapes-longer': (SHAPES, 2, 'shapes, as many steps'),
}
TASKS_OF = {
    'photographs': ('vehicles', 'animals', 'road', 'pets', 'flying'),
    'shapes': ('digits', 'cells'),
}


class Mixture(NamedTuple):
    """The images of a training, and the tasks that its networks are for.

    Args:
        place (str): What tools/dataset/make_mixture.py wrote.
        digest (str): The SHA-256 of its images.
        worlds (tuple[str]): Those that are trained on.
        seed (int): The training's.
    """
    place: str
    digest: str
    worlds: Tuple[str, ...]
    seed: int

    def __repr__(self) -> str:
        # What makes it another training, which the place does not.
        return f'{type(self).__name__}{tuple(self[1:])}'

    def pretraining(self) -> dict:
        """The config of what is trained on, but for its pipeline."""
        cfg = dict(
            type='ImageFolder', data_root=os.path.join(self.place, 'images'))
        init_default_scope('mmselfsup')
        dataset = DATASETS.build(cfg)
        worlds = [
            dataset.name_of(index).split('/')[0]
            for index in range(len(dataset))
        ]
        chosen = [i for i, world in enumerate(worlds) if world in self.worlds]
        return dict(cfg, indices=chosen)

    def accuracies(self, model: nn.Module, image_format: ImageFormat,
                   subnet: str) -> Dict[str, Dict[str, Dict[str, float]]]:
        """What each network of a model is worth for each task.

        Returns:
            dict: By task and network, ``knn`` and ``linear`` on its test
            images, and of its training images ``rank``, see
            :func:`effective_rank`, and what routing goes by, ``by_METRIC``.
        """
        found = dict(networks(model, subnet))
        if isinstance(model, SDR):
            found[UNIFIED] = backbone_of(model)
        found = {name: network.eval() for name, network in found.items()}
        return {
            task: {
                name: worth(network, *images, self.seed)
                for name, network in found.items()
            }
            for task, images in task_images(self.place, image_format).items()
        }


@lru_cache(maxsize=1)
def task_images(place: str,
                image_format: ImageFormat) -> Dict[str, Tuple[tuple, tuple]]:
    """By task, inputs and labels of its training and of its test images."""

    def load(dataset: BaseDataset) -> Tuple[torch.Tensor, np.ndarray]:
        inputs, labels = zip(*iterate(dataset, image_format))
        return torch.cat(inputs), np.concatenate(labels)

    folder = os.path.join(place, 'tasks')
    return {
        task:
        tuple(
            zip(*map(
                load,
                labelled_datasets(
                    os.path.join(folder, task), image_format.input_size))))
        for task in sorted(os.listdir(folder))
    }


def worth(network: nn.Module, inputs: Tuple[torch.Tensor, torch.Tensor],
          labels: Tuple[np.ndarray,
                        np.ndarray], seed: int) -> Dict[str, float]:
    """What a network is worth for a task, see :meth:`Mixture.accuracies`.

    A setting by which a training diverges is as bad as can be.

    Raises:
        VerificationError: If a training that is reported diverged.
    """
    device = next(network.parameters()).device
    # As route.py does.
    chosen = pick(inputs[0], CALIBRATION_IMAGES, seed=0)
    recalibrate(network, [inputs[0][chosen].to(device)])
    train, test = (extract_features(network, [(images, wanted)])
                   for images, wanted in zip(inputs, labels))
    if not (are_finite(train, seed) and are_finite(test, seed)):
        return dict.fromkeys((*map('by_{}'.format, ROUTING), *METRICS, 'rank'),
                             0.)
    scores = {f'by_{name}': score(*train) for name, score in ROUTING.items()}
    return dict(
        scores,
        knn=knn_accuracy(train, test),
        linear=linear_accuracy(train, test),
        rank=effective_rank(train[0]))


def effective_rank(features: np.ndarray) -> float:
    """In how many directions features vary: low where they collapsed.

    The exponential of the entropy of their singular values (RankMe, arXiv
    2210.02885, equation 1). That they are not centred is on purpose: what is
    left of constant ones is noise, which has all directions.

    Args:
        features (ndarray): Shape (N, D).

    Returns:
        float: In [1, D].
    """
    values = np.linalg.svd(features, compute_uv=False)
    parts = values / max(values.sum(), 1e-12) + 1e-12
    return float(np.exp(-(parts * np.log(parts)).sum()))


class Trainings:
    """What is trained for the comparison.

    Args:
        args (Namespace): The command's.
        briefly (bool): Train only as long as it takes to measure costs.
            Defaults to False.

    Raises:
        InputError: If the mixture is none.
    """

    def __init__(self,
                 args: argparse.Namespace,
                 briefly: bool = False) -> None:
        self.place = args.mixture
        worlds = os.path.join(self.place, 'images')
        about = os.path.join(self.place, 'mixture.json')
        if not os.path.isfile(about) or {*os.listdir(worlds)} != {*WORLDS}:
            raise InputError(f'--mixture {self.place} holds no mixture: give '
                             'what tools/dataset/make_mixture.py writes')
        with open(about) as file:
            self.about = json.load(file)
        if 'sha256' not in self.about:
            raise InputError(f'{about} does not say which images it is of: '
                             'make the mixture again, by '
                             'tools/dataset/make_mixture.py')
        self.budget = BUDGETS[args.budget]
        if briefly:
            part = self.budget.cost_part
            self.budget = self.budget._replace(
                unified_epochs=self.budget.unified_epochs // part,
                sdr_epochs=self.budget.sdr_epochs // part)
        self.setting_seeds = setting_seeds(max(self.budget.setting_seeds))
        self.folder = os.path.join(args.out, 'trainings')
        self.cfg = Config.fromfile(CONFIG)
        self.family: GroupedResNetFamily = build_family(
            self.cfg.model.family.to_dict())

    def job(self, way: str, setting: Setting, seed: int) -> Job:
        """A training.

        Args:
            way (str): ``ALONE``, or a key of ``PARTS``, ``ALTERNATIVES`` or
                ``HALVES``.
            setting (Setting): The learning rate and the momentum.
            seed (int): The seed.
        """
        cfg = Config(self.cfg.to_dict())
        cfg.optim_wrapper.optimizer.lr = setting.rate
        momentum = ''
        if setting.momentum is not None:
            cfg.model.base_momentum = setting.momentum
            momentum = f'-m{setting.momentum:g}'
        worlds, factor, _ = HALVES.get(way, (WORLDS, 1, 'all'))
        if is_sdr(way):
            cfg.train_cfg.max_epochs = self.budget.sdr_epochs
            self._leave_out(way, cfg, setting, seed)
            if way in ALTERNATIVES:
                cfg.merge_from_dict(ALTERNATIVES[way].options)
        else:
            cfg.train_cfg.max_epochs = factor * self.budget.unified_epochs
            # The same batches, of all images.
            cfg.train_dataloader.batch_sampler.phases = [
                dict(levels=0, until=1)
            ]
            cfg.model = self._unified_cfg(cfg.model.to_dict())
            cfg.custom_hooks = []
        return Job(f'mixture-{way}-seed{seed}-lr{setting.rate:g}{momentum}',
                   cfg, self.family.input_size,
                   Mixture(self.place, self.about['sha256'], worlds, seed))

    def _leave_out(self, way: str, cfg: Config, setting: Setting,
                   seed: int) -> None:
        """Take one of its parts from SDR."""
        batches = cfg.train_dataloader.batch_sampler
        if way in ('no-phases', 'neither'):
            batches.phases = batches.phases[-1:]
            # A network that has not learned yet makes no clusters.
            batches.clusters = os.path.join(TRAININGS,
                                            self._clusters(setting, seed))
        if way in ('no-distillation', 'neither'):
            cfg.model.distillation_weight = 0.
        if way == 'random-clusters':
            batches.clusters = os.path.join(TRAININGS,
                                            self._drawn(setting, seed))

    def _clusters(self, setting: Setting, seed: int) -> str:
        """The name of SDR's cluster list, in the folder of all trainings."""
        return os.path.join(
            self.job('sdr', setting, seed).folder, 'clusters.csv')

    def undrawn(self, setting: Setting, seeds: Sequence[int]) -> List[str]:
        """SDR's cluster lists that some are still to be drawn after."""
        return [
            self._clusters(setting, seed) for seed in seeds
            if not self._is_drawn(setting, seed)
        ]

    def _is_drawn(self, setting: Setting, seed: int) -> bool:
        user = self.job('random-clusters', setting, seed)
        return user.finished(self.folder) or os.path.exists(
            os.path.join(self.folder, self._drawn(setting, seed)))

    def _drawn(self, setting: Setting, seed: int) -> str:
        """The same of the list that says nothing."""
        # Beside the training, whose folder may be made again.
        return f'drawn-{os.path.dirname(self._clusters(setting, seed))}.csv'

    def draw_clusters(self, setting: Setting, seed: int) -> None:
        """Write clusters that say nothing, of the sizes of SDR's.

        A cluster of twice the images has twice the steps: of other sizes, that
        would be compared as well.

        Args:
            setting (Setting): That of SDR's training, which is finished.
            seed (int): Of the training, and of what is drawn.
        """
        if self._is_drawn(setting, seed):
            return
        path = os.path.join(self.folder, self._drawn(setting, seed))
        cfg = Mixture(self.place, '', WORLDS, seed).pretraining()
        dataset = DATASETS.build(cfg)
        clusters = read_clusters(
            os.path.join(self.folder, self._clusters(setting, seed)), dataset,
            self.family.num_clusters)
        write_clusters(path, dataset,
                       np.random.default_rng(seed).permutation(clusters))

    def _unified_cfg(self, model: dict) -> dict:
        """The config of a network of the sub-networks' size, alone.

        By the same code, with the warm-up that SDR has; with one network,
        that is BYOL.
        """
        kept = ('depth', 'stem', 'input_size')
        return dict(
            model,
            type='DSPNet',
            family=dict({key: model['family'][key]
                         for key in kept},
                        type='ResNetFamily',
                        base_channels=self.family.shared_channels +
                        self.family.group_channels,
                        desired=[dict(name=ALONE)]),
            sampler=dict(type='FixedSampler'))


def is_sdr(way: str) -> bool:
    """Whether a way is SDR, with or without its parts."""
    return way in PARTS or way in ALTERNATIVES


class Routed(NamedTuple):
    """What a training gives for a task.

    Args:
        found (dict): Of the network that routing finds.
        best (dict): The highest of each accuracy that any network has, which
            nobody knows before.
        rank (float): The mean effective rank of all networks' features, but
            for SDR's unified network.
    """
    found: Dict[str, float]
    best: Dict[str, float]
    rank: float

    @classmethod
    def of(cls, networks: Dict[str, Dict[str, float]], metric: str):
        """Route among networks, as route.py does."""
        ranked = [networks[name] for name in sorted(networks)]
        return cls(
            max(ranked, key=lambda worth: worth[f'by_{metric}']),
            {key: max(worth[key] for worth in ranked)
             for key in METRICS},
            mean(worth['rank'] for name, worth in networks.items()
                 if name != UNIFIED))


def routed(result: dict, metric: str = ROUTED_BY) -> Dict[str, Routed]:
    """What a training's result gives for each task."""
    return {
        task: Routed.of(networks, metric)
        for task, networks in result['accuracies'].items()
    }


def gains_of(ours: List[dict],
             theirs: List[dict],
             metric: str = ROUTED_BY) -> Dict[str, Dict[str, float]]:
    """What ours are better in the mean over tasks, paired by seed.

    Args:
        ours (list[dict]): Results of SDR.
        theirs (list[dict]): Results of the unified network, or others of SDR.
        metric (str): What is routed by.

    Returns:
        dict: By metric of the evaluation, ``mean`` and ``se``.
    """
    return {
        key:
        mean_and_error([
            mean(one[task].found[key] - other[task].found[key] for task in one)
            for one, other in ((routed(mine, metric), routed(other, metric))
                               for mine, other in zip(ours, theirs))
        ])
        for key in METRICS
    }


def regrets_of(results: List[dict], metric: str,
               everything: List[dict]) -> Dict[str, Dict[str, float]]:
    """What routing loses to the best network, in the mean over tasks.

    Args:
        results (list[dict]): Results of SDR, with what is routed to.
        metric (str): What is routed by.
        everything (list[dict]): The same with all networks.

    Returns:
        dict: By metric of the evaluation, ``mean`` and ``se``.
    """
    return {
        key:
        mean_and_error([
            mean(best[task].best[key] - each.found[key]
                 for task, each in routed(result, metric).items())
            for result, best in zip(results, map(routed, everything))
        ])
        for key in METRICS
    }


def costs_of(args: argparse.Namespace, best: Dict[str, Setting],
             pool: ProcessPoolExecutor) -> Dict[str, float]:
    """What SDR and the unified network cost, see :func:`measure_costs`.

    By trainings that are shorter, by the same part, and make clusters as well,
    which is done once however long a training is.

    Args:
        args (Namespace): The command's.
        best (dict): The setting of each.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        dict: Seconds of each.
    """
    brief = Trainings(args, briefly=True)
    costs, = measure_costs(
        [[brief.job(way, best[way], args.seeds[0]) for way in best]],
        brief.folder, pool)
    part = BUDGETS[args.budget].cost_part
    return {
        way:
        part * (cost['seconds'] - cost['before_epochs']) +
        cost['before_epochs']
        for way, cost in zip(best, costs)
    }


def rows_of(unified: List[dict], sdr: List[dict]) -> List[dict]:
    """A row for each task, and one for their mean."""
    seeds = [(routed(one), routed(other)) for one, other in zip(unified, sdr)]
    tasks = list(seeds[0][0])
    rows = []
    for name, chosen in [*((task, [task]) for task in tasks), ('mean', tasks)]:
        row: Dict[str, Any] = dict(task=name)
        for key in METRICS:
            for title, take in (('unified', lambda one, other: one.found),
                                ('routed', lambda one, other: other.found),
                                ('best', lambda one, other: other.best)):
                row[f'{key}_{title}'] = mean_and_error([
                    mean(take(one[task], other[task])[key] for task in chosen)
                    for one, other in seeds
                ])
        rows.append(row)
    return rows


def unrouted(result: dict) -> dict:
    """SDR's result, as if it had nothing but its own unified network."""
    return dict(
        result,
        accuracies={
            task: {
                ALONE: networks[UNIFIED]
            }
            for task, networks in result['accuracies'].items()
        })


def parted(result: dict) -> dict:
    """SDR's result, as if nothing could be routed to its unified network."""
    return dict(
        result,
        accuracies={
            task: {
                name: worth
                for name, worth in networks.items() if name != UNIFIED
            }
            for task, networks in result['accuracies'].items()
        })


def routing_of(trained: Dict[str, List[dict]]) -> List[dict]:
    """A row for each way to route, and one for no routing at all.

    What each loses, it loses to the best of all networks.
    """
    sdr, unified = trained['sdr'], trained[ALONE]
    ways = [(metric, metric, sdr) for metric in ROUTING]
    ways += [
        (f"{ROUTED_BY}, without SDR's own unified network", ROUTED_BY,
         [parted(result) for result in sdr]),
        ("none: SDR's own unified network", ROUTED_BY,
         [unrouted(result) for result in sdr]),
    ]
    return [
        dict(
            metric=title,
            **{
                f'{key}_gain': value
                for key, value in gains_of(results, unified, metric).items()
            },
            **{
                f'{key}_regret': value
                for key, value in regrets_of(results, metric, sdr).items()
            }) for title, metric, results in ways
    ]


def parts_of(trained: Dict[str, List[dict]], ways: Dict[str,
                                                        str]) -> List[dict]:
    """A row for each way, told as it says, compared with the unified network.

    ``spread`` is within batches: of images of one cluster it is smaller.
    """
    return [
        dict(
            idea=idea,
            **{
                f'{key}_gain': value
                for key, value in gains_of(trained[way],
                                           trained[ALONE]).items()
            },
            rank=mean_and_error([
                mean(each.rank for each in routed(result).values())
                for result in trained[way]
            ]),
            spread=mean_and_error(
                [min(result['spreads'].values()) for result in trained[way]]))
        for way, idea in ways.items()
    ]


def halves_of(trained: Dict[str, List[dict]]) -> List[dict]:
    """What networks of each half, and of all, give for each half's tasks.

    With what they gain over those of all images, paired by seed.
    """

    def accuracies(way: str, tasks: Sequence[str], key: str) -> List[float]:
        return [
            mean(routed(result)[task].found[key] for task in tasks)
            for result in trained[way]
        ]

    rows = []
    for way, (_, _, images) in [*HALVES.items(), (ALONE, (0, 0, 'all'))]:
        row: Dict[str, Any] = dict(images=images)
        for half, tasks in TASKS_OF.items():
            for key in METRICS:
                of_way, of_all = (
                    accuracies(each, tasks, key) for each in (way, ALONE))
                row[f'{key}_{half}'] = mean_and_error(of_way)
                row[f'{key}_{half}_gain'] = mean_and_error(
                    [one - other for one, other in zip(of_way, of_all)])
        rows.append(row)
    return rows


def choose(trainings: Trainings, way: str,
           pool: ProcessPoolExecutor) -> Tuple[Setting, List[dict]]:
    """The best setting of a way, see :func:`choose_setting`."""

    def accuracies(settings: List[Setting],
                   seeds: List[int]) -> List[List[float]]:
        results = iter(
            run_jobs([
                trainings.job(way, each, seed) for each in settings
                for seed in seeds
            ], trainings.folder, pool))
        # By the tasks' training images: the others are for the result.
        return [[
            mean(each.found[f'by_{key}']
                 for each in routed(next(results)).values() for key in METRICS)
            for _ in seeds
        ] for _ in settings]

    budget = trainings.budget
    return choose_setting(way, accuracies, budget.rates, budget.momenta,
                          budget.setting_seeds, budget.widen)


def check_earlier(path: str, args: argparse.Namespace, mixture: dict) -> None:
    """Refuse to replace what says something else, or more.

    Args:
        path (str): Where the report goes.
        args (Namespace): The command's.
        mixture (dict): What is known of the mixture.

    Raises:
        InputError: If there is no report, one of another mixture or other
            seeds, or one with alternatives that this one would not have.
    """
    if not os.path.exists(path):
        return
    report = read(
        path, ('mixture', *OF_ANY),
        remedy='give another --out or move the '
        'file')
    if report['mixture'] != mixture:
        raise InputError(f'{path} is a report of another mixture than '
                         f'{args.mixture}: give another --out')
    check_seeds(path, report, args.seeds)
    told = {row['idea'] for row in report.get('alternatives', [])}
    lost = [
        name for name, idea in ALTERNATIVES.items()
        if idea.text in told and name not in args.alternatives
    ]
    if lost:
        raise InputError(f'{path} tells of alternatives that would be lost: '
                         f'add {" ".join(lost)} to --alternatives, or give '
                         'another --out')


def compare(args: argparse.Namespace, path: str,
            pool: ProcessPoolExecutor) -> dict:
    """Train all, and put the report together.

    Args:
        args (Namespace): The command's.
        path (str): Where the report goes.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        dict: What the command writes as JSON, but for ``command``.
    """
    trainings = Trainings(args)
    check_earlier(path, args, trainings.about)
    compared = (ALONE, 'sdr')
    # Side by side, so that no process waits for the other choice.
    with ThreadPoolExecutor(len(compared)) as threads:
        chosen = dict(
            zip(
                compared,
                threads.map(lambda way: choose(trainings, way, pool),
                            compared)))

    best = {way: setting for way, (setting, _) in chosen.items()}

    def train(ways: Sequence[str]) -> Dict[str, List[dict]]:
        say(f'{", ".join(ways)}: seeds {", ".join(map(str, args.seeds))}')
        groups = [[
            trainings.job(way, best['sdr' if is_sdr(way) else ALONE], seed)
            for way in ways
        ] for seed in args.seeds]
        by_seed = run_groups(groups, trainings.folder, pool)
        return {way: list(of) for way, of in zip(ways, zip(*by_seed))}

    others = [
        way for way in (*PARTS, *HALVES, *args.alternatives)
        if way not in compared
    ]
    # Before anything is made of what SDR gives.
    restore([trainings.job('sdr', best['sdr'], seed) for seed in args.seeds], [
        trainings.job(way, best['sdr'], seed) for way in others if is_sdr(way)
        for seed in args.seeds
    ], trainings.folder, pool, trainings.undrawn(best['sdr'], args.seeds))
    trained = train(compared)
    for seed in args.seeds:
        trainings.draw_clusters(best['sdr'], seed)
    trained.update(train(others))
    costs = costs_of(args, best, pool)
    gains = gains_of(trained['sdr'], trained[ALONE])
    regrets = regrets_of(trained['sdr'], ROUTED_BY, trained['sdr'])
    return dict(
        comparison=[
            dict(
                against='the unified network',
                cost_ratio=costs['sdr'] / costs[ALONE],
                **{
                    f'{key}_gain': gain
                    for key, gain in gains.items()
                },
                **{
                    f'{key}_regret': regret
                    for key, regret in regrets.items()
                })
        ],
        rows=rows_of(trained[ALONE], trained['sdr']),
        parts=parts_of(trained, {
            ALONE: 'the unified network',
            **PARTS
        }),
        alternatives=parts_of(
            trained,
            {name: ALTERNATIVES[name].text
             for name in args.alternatives}),
        routing=routing_of(trained),
        halves=halves_of(trained),
        seconds=SECONDS,
        costs=costs,
        by_seed=trained,
        settings={
            way: dict(best=best._asdict(), tried=tried)
            for way, (best, tried) in chosen.items()
        },
        mixture=trainings.about,
        budget=trainings.budget._asdict(),
        seeds=args.seeds,
        setting_seeds=trainings.setting_seeds,
        versions=trained_with(
            [result['versions'] for result in chain(*trained.values())]))


def draw(report: dict) -> Figure:
    """Accuracies by task: of the unified network, the routed and the best."""
    figure = Figure(figsize=(9, 7), layout='constrained')
    panels = figure.subplots(2, 1, sharex=True)
    rows = report['rows']
    places = np.arange(len(rows))
    for panel, (key, title) in zip(panels, METRICS.items()):
        for number, (which, label) in enumerate(
            (('unified', 'unified network'), ('routed', 'routed sub-network'),
             ('best', 'best sub-network in hindsight'))):
            values = [row[f'{key}_{which}'] for row in rows]
            panel.bar(
                places + 0.27 * (number - 1),
                [100 * value['mean'] for value in values],
                width=0.25,
                yerr=[100 * value['se'] for value in values],
                capsize=2,
                color=f'C{number}',
                label=label)
        panel.set(ylabel='accuracy (%)', title=title)
        panel.grid(axis='y', alpha=0.3)
    panels[1].set_xticks(places, [row['task'] for row in rows])
    panels[0].legend(loc='lower right')
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--mixture',
        required=True,
        metavar='FOLDER',
        help='what tools/dataset/make_mixture.py wrote')
    parser.add_argument(
        '--budget',
        default='quick',
        choices=BUDGETS,
        help='quick: minutes on 2 cores; full: hours (default: %(default)s)')
    parser.add_argument(
        '--alternatives',
        nargs='+',
        default=[],
        choices=ALTERNATIVES,
        metavar='NAME',
        help='train SDR otherwise, too: ' +
        '; '.join(f'{name}: {idea.text}'
                  for name, idea in ALTERNATIVES.items()))
    add_trial_options(parser)
    args = parser.parse_args()
    check_trial_options(args)
    stem = report_stem(args, 'routed_vs_unified')
    check_writable(f'{stem}.json')
    with workers(args.processes) as pool:
        report = compare(args, f'{stem}.json', pool)
    report['command'] = command_line(__file__)
    write_json(f'{stem}.json', report)
    with whole_file(f'{stem}.png') as path:
        draw(report).savefig(path, format='png', dpi=150)
    for part in ('rows', 'comparison'):
        print(results_table(report[part]))
    print(f'report: {stem}.json, picture: {stem}.png')


if __name__ == '__main__':
    run(main)
