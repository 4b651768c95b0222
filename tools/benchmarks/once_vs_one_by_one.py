#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Compare networks slimmed from one supernet with each pre-trained alone.

The supernet is trained once, and each desired network by what the method
builds on, as MMSelfSup has it, with the same views, batches, epochs, optimizer
and evaluation. For DSPNet, a third way is to distill each smaller network from
the largest of those by SEED. The learning rate and the momentum of the target
network are the best pair from the same lists on seeds that are not reported:
of the supernet for all its networks, and of each network that is trained alone
for itself. Settings are chosen for the config's own desired networks; of more
of them, each that is trained alone has those of the nearest in FLOPs.
"""
import argparse
import copy
import math
import os
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import accumulate, chain
from statistics import mean
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure
from methods import OF_ANY, read, trained_on
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS
from one_by_one import alone_cfg
from result_tables import comparisons, results_table
from trials import (COST_EPOCHS, METRICS, SECONDS, TRAININGS, Data, Job,
                    Setting, add_trial_options, check_images, check_seeds,
                    check_trial_options, choose_setting, measure_costs,
                    report_stem, restore, run_groups, say, setting_seeds,
                    trained_with, workers)

from dspnet_mm.cli import command_line, run
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation.report import METHODS, PROBES, class_folders
from dspnet_mm.files import check_writable, whole_file, write_json
from dspnet_mm.means import mean_and_error
from dspnet_mm.models.backbones import build_family
from dspnet_mm.plots import flops_axis
from dspnet_mm.subnet import ResNetFamily

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What each method on a supernet builds on, which trains networks alone.
BUILT_ON = {
    'dspnet': 'byol',
    'us3l': 'byol',
    'slimclr-mocov2': 'mocov2',
    'slimclr-mocov3': 'mocov3'
}


class Budget(NamedTuple):
    """How much is trained; None leaves it as the config says."""
    epochs: Optional[int]
    images: Optional[int]
    batch_size: Optional[int]
    base_channels: Optional[int]
    rates: Tuple[float, ...]
    # Of the target network; none leaves it as the config says.
    momenta: Tuple[float, ...]
    # Of SEED; fewer features than images.
    queue_size: int
    # Of MoCo v2; so few keys that an image seldom is a negative of itself.
    # None leaves it as the config says.
    keys: Optional[int] = None
    # How many seeds all settings are tried on, the better half of them, ...
    setting_seeds: Tuple[int, ...] = (1, )
    # Whether rates beyond these are tried where the best is at an end.
    widen: bool = False


BUDGETS = dict(
    digits=dict(
        quick=Budget(10, None, None, 8, (0.03, 0.06), (), 1024),
        # Of few, tiny images one training says little of a setting.
        full=Budget(
            None,
            None,
            None,
            None, (0.015, 0.03, 0.06, 0.12), (0.9, 0.99),
            1024,
            setting_seeds=(3, 6, 12))),
    # Of few images, small batches: the same epochs have more steps, and all
    # networks learn far more in them.
    folder=dict(
        quick=Budget(10, 5000, 64, 8, (0.06, 0.12), (), 4096, 1024),
        # A training takes long, and what is best differs by network.
        full=Budget(
            30,
            5000,
            64,
            None, (0.06, 0.12), (0.9, 0.99),
            4096,
            1024,
            widen=True),
        gpu=Budget(
            None,
            None,
            None,
            None, (0.06, 0.12), (0.97, 0.99, 0.996),
            32768,
            widen=True)))
# What networks that are trained together are called where each has settings.
SUPERNET = 'supernet'
# So many desired networks the config has.
OWN_DNS = 4
# More of them: each width with each of these.
DEPTHS = {OWN_DNS: [], 8: [2, 1], 16: [2, [2, 2, 1, 1], [1, 1, 2, 2], 1]}


def desired(number: int, family: dict) -> List[dict]:
    """So many desired networks, the largest first.

    Args:
        number (int): How many, a key of ``DEPTHS``.
        family (dict): The config's family, whose own desired networks keep
            their names; they are all where ``number`` is ``OWN_DNS``.
    """
    if not DEPTHS[number]:
        return family['desired']
    own = build_family(family)
    names = {subnet: name for name, subnet in own.desired.items()}
    chosen = []
    for width in (1.0, 0.75, 0.5, 0.25):
        for depth in DEPTHS[number]:
            numbers = ''.join(map(str, np.ravel(depth)))
            given = dict(widths=width, depths=depth)
            subnet = own.subnet(**given)
            name = names.get(subnet, f'{width:.2f}x-{numbers}')
            chosen.append(dict(name=name, **given))
    return chosen


def config_of(method: str, kind: str) -> Config:
    """A method's config.

    Args:
        method (str): A key of ``BUILT_ON``.
        kind (str): 'digits' or 'folder'.

    Returns:
        Config: The config as it is shipped.
    """
    setting = dict(
        digits='1xb32-coslr-40e_digits', folder='1xb256-coslr-100e_cifar10')
    return Config.fromfile(
        os.path.join(ROOT, 'configs',
                     method.split('-')[0],
                     f'{method}_resnet18-small_{setting[kind]}.py'))


def data_name(place: str) -> str:
    """What results call the data: a folder's name but for a last number."""
    return re.sub(r'\W|\d+$', '', os.path.basename(place.rstrip('/')))


def report_name(args: argparse.Namespace) -> str:
    """What reports call a method on some data; DSPNet goes without saying."""
    data = data_name(args.data)
    return data if args.method == 'dspnet' else f'{args.method}_{data}'


class Sides:
    """The trainings of both sides of the comparison.

    Args:
        args (Namespace): From :func:`parse_args`.
        method (str): What trains the supernet. Defaults to 'dspnet'.
        options (dict, optional): Changes to the supernet's config.
        dns (int, optional): How many desired networks, the same for all
            methods. Defaults to ``args.dns``.
        epochs (int, optional): How many epochs. Defaults to None, those of
            the budget.

    Raises:
        InputError: If the data or their budget do not exist.
    """

    def __init__(self,
                 args: argparse.Namespace,
                 method: str = 'dspnet',
                 options: Optional[dict] = None,
                 dns: Optional[int] = None,
                 epochs: Optional[int] = None) -> None:
        kind = 'digits' if args.data == 'digits' else 'folder'
        budgets = BUDGETS[kind]
        if args.budget not in budgets:
            raise InputError(f'--budget {args.budget} does not exist for '
                             f'{kind}: allowed are {", ".join(budgets)}')
        if kind == 'folder':
            class_folders(args.data)
        self.budget = budgets[args.budget]
        if epochs is not None:
            self.budget = self.budget._replace(epochs=epochs)
        self.setting_seeds = setting_seeds(max(self.budget.setting_seeds))
        self.place = os.path.normpath(args.data)
        self.folder = os.path.join(args.out, 'trainings')
        self.method = method
        self.alone = BUILT_ON[method]
        # Of each way and network, as soon as it is chosen.
        self.best: Dict[str, Dict[str, Setting]] = {}
        init_default_scope('mmselfsup')
        dspnet = config_of('dspnet', kind)
        own = dspnet.model.family.to_dict()
        self._desired = desired(dns or args.dns, own)
        self.cfg = config_of(method, kind)
        # What is merged is changed on the way.
        self.cfg.merge_from_dict(copy.deepcopy(options or {}))
        # BYOL's is DSPNet's, for all that build on it.
        self._alone_cfg = dspnet if self.alone == 'byol' else Config(
            self.cfg.to_dict())
        for cfg in (self.cfg, self._alone_cfg):
            self._fit(cfg)
        family = self.cfg.model.family.to_dict()
        self.family: ResNetFamily = build_family(family)
        # Of those that settings are chosen for.
        self._own: ResNetFamily = build_family(
            dict(family, desired=own['desired']))
        # What it cannot train is refused before anything is trained.
        MODELS.build(self.cfg.model)

    def _fit(self, cfg: Config) -> None:
        """Make a config one of this comparison."""
        if self.budget.epochs is not None:
            cfg.train_cfg.max_epochs = self.budget.epochs
        if self.budget.batch_size is not None:
            cfg.train_dataloader.batch_size = self.budget.batch_size
        if self.budget.base_channels is not None:
            cfg.model.family.base_channels = self.budget.base_channels
        if self.budget.keys is not None and 'queue_size' in cfg.model:
            cfg.model.queue_size = self.budget.keys
        cfg.model.family.desired = copy.deepcopy(self._desired)

    def networks(self, way: str) -> List[str]:
        """What a way trains, each with a setting of its own.

        Args:
            way (str): The method, what it builds on, or 'seed'.

        Returns:
            list[str]: ``SUPERNET``, or names of desired networks.
        """
        if way == self.method:
            return [SUPERNET]
        names = list(self.family.desired)
        return names[1:] if way == 'seed' else names

    def job(self, way: str, network: str, setting: Setting, seed: int) -> Job:
        """A training.

        Args:
            way (str): The method, what it builds on, or 'seed'.
            network (str): One of :meth:`networks`.
            setting (Setting): The learning rate and the momentum, which SEED
                has none of.
            seed (int): The seed.
        """
        data = Data(self.place, self.budget.images, seed)
        cfg = Config(
            (self.cfg if way == self.method else self._alone_cfg).to_dict())
        model = cfg.model.to_dict()
        momentum = ''
        if setting.momentum is not None:
            model['base_momentum'] = setting.momentum
            momentum = f'm{setting.momentum:g}'
        if way == self.alone:
            subnet = self.family.desired[network]
            model = alone_cfg(model, self.family, subnet)
        elif way == 'seed':
            model = self._seed_cfg(model, self.teacher(seed), network)
        cfg.model = model
        cfg.optim_wrapper.optimizer.lr = setting.rate
        subnet = '' if network == SUPERNET else network
        name = '-'.join(
            filter(None, (data_name(self.place), way, f'seed{seed}',
                          f'lr{setting.rate:g}', momentum, subnet)))
        return Job(name, cfg, self.family.input_size, data, subnet)

    def jobs(self, way: str, seed: int) -> List[Job]:
        """All trainings of a way for a seed, each with its best setting."""
        return [
            self.job(way, network, self._best_of(way, network), seed)
            for network in self.networks(way)
        ]

    def _best_of(self, way: str, network: str) -> Setting:
        """The best setting, or that of the network with the nearest FLOPs.

        Settings are chosen for the config's own desired networks alone.
        """
        best = self.best[way]
        if network == SUPERNET:
            return best[network]

        flops = self.family.flops(self.family.desired[network])

        def distance(name: str) -> float:
            return abs(
                math.log(self._own.flops(self._own.desired[name]) / flops))

        return best[min(best, key=distance)]

    def teacher(self, seed: int) -> Job:
        """What SEED's networks learn from: the largest, trained by BYOL."""
        return self.jobs('byol', seed)[0]

    def restore_teachers(self, students: Iterable[Job], seeds: Iterable[int],
                         pool: ProcessPoolExecutor) -> None:
        """Train again the teachers of some seeds that are missing."""
        restore([self.teacher(seed) for seed in seeds], students, self.folder,
                pool)

    def _seed_cfg(self, model: dict, teacher: Job, subnet: str) -> dict:
        """The config that distills a sub-network, and trains no other.

        It begins as it does in a supernet, with the supernet's deviations.
        """
        copied = ('family', 'data_preprocessor', 'backbone', 'neck')
        byol = teacher.cfg.model.to_dict()
        epochs = teacher.cfg.train_cfg.max_epochs
        return dict({key: model[key]
                     for key in copied},
                    type='SEED',
                    sampler=dict(type='FixedSampler', name=subnet),
                    head=dict(
                        type='SEEDHead',
                        channels=model['neck']['out_channels'],
                        queue_size=self.budget.queue_size),
                    teacher=dict(
                        backbone=byol['backbone'],
                        neck=byol['neck'],
                        checkpoint=os.path.join(TRAININGS, teacher.folder,
                                                f'epoch_{epochs}.pth')))


# ``seconds`` and ``without_loading`` of each of some trainings.
Costs = List[Dict[str, float]]


class Outcome(NamedTuple):
    """What a method gives for a seed.

    Args:
        accuracies (dict): By network and metric, in [0, 1].
        versions (list[dict]): Of what trained, for each training.
    """
    accuracies: Dict[str, Dict[str, float]]
    versions: List[Dict[str, str]]

    @classmethod
    def of(cls, results: List[dict]) -> 'Outcome':
        """Put a method's trainings together."""
        accuracies: Dict[str, Dict[str, float]] = {}
        for result in results:
            accuracies.update(result['accuracies'])
        return cls(accuracies, [result['versions'] for result in results])

    def as_json(self) -> dict:
        """What reports say of each seed."""
        return dict(accuracies=self.accuracies)

    def mean(self, *metrics: str) -> float:
        """The mean accuracy over networks and metrics."""
        return mean(accuracy[metric] for accuracy in self.accuracies.values()
                    for metric in metrics)


def run_all(groups: Sequence[List[Job]], folder: str,
            pool: ProcessPoolExecutor) -> List[Outcome]:
    """The outcome of each group of trainings, see :meth:`Sides.jobs`."""
    return [
        Outcome.of(results) for results in run_groups(groups, folder, pool)
    ]


def costs_of(sides: Sides, brief: Sides, ways: Sequence[str], seed: int,
             pool: ProcessPoolExecutor) -> Dict[str, Costs]:
    """What each way's trainings cost, in seconds; see :func:`measure_costs`.

    Args:
        sides (Sides): What costs are wanted of.
        brief (Sides): The same of fewer epochs.
        ways (Sequence[str]): The ways, of which SEED needs BYOL's largest.
        seed (int): That of the measured trainings.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        dict: By way, of each training; SEED's begin with its teacher's.
    """
    brief.best = sides.best
    times = sides.cfg.train_cfg.max_epochs / brief.cfg.train_cfg.max_epochs
    jobs = {way: brief.jobs(way, seed) for way in ways}
    stages = [[job for way in ways if way != 'seed' for job in jobs[way]],
              jobs.get('seed', [])]
    measured = chain(*measure_costs(stages, sides.folder, pool))
    costs = {
        way: [{
            key: times * value
            for key, value in next(measured).items()
        } for _ in jobs[way]]
        for way in sorted(ways, key=lambda way: way == 'seed')
    }
    if 'seed' in costs:
        costs['seed'].insert(0, costs['byol'][0])
    return costs


def total(costs: Costs, key: str) -> float:
    """What all trainings cost."""
    return sum(cost[key] for cost in costs)


def error(outcomes: List[Outcome], metric: str, names: Iterable[str]) -> float:
    """The mean error rate over seeds and the named networks."""
    return mean(1 - outcome.accuracies[name][metric] for outcome in outcomes
                for name in names)


def gains_of(ours: List[Outcome], theirs: List[Outcome],
             names: Sequence[str]) -> Dict[str, Dict[str, float]]:
    """What ours are better in the mean over some networks, by metric."""
    gains = {}
    for metric in METRICS:
        gains[metric] = mean_and_error([
            mean(one.accuracies[name][metric] - other.accuracies[name][metric]
                 for name in names) for one, other in zip(ours, theirs)
        ])
    return gains


def gains_by_network(
        ours: List[Outcome],
        theirs: List[Outcome]) -> Dict[str, Dict[str, Dict[str, float]]]:
    """See :func:`gains_of`, of each network that theirs has."""
    return {
        name: gains_of(ours, theirs, [name])
        for name in theirs[0].accuracies
    }


def figures_of(ours: List[Outcome], theirs: List[Outcome], our_costs: Costs,
               their_costs: Costs) -> Dict[str, float]:
    """What the comparison comes to, over the networks that theirs has.

    Both lists go by the same seeds, of which theirs may be the first ones
    alone; costs are those of one.
    """
    ours = ours[:len(theirs)]
    gains = gains_by_network(ours, theirs)
    # The first is the supernet, whose gain may be the others' loss.
    smaller = [name for name in list(ours[0].accuracies)[1:] if name in gains]
    figures = {}
    for metric in METRICS:
        worst = min(gains, key=lambda name: gains[name][metric]['mean'])
        for kind, names in (('mean', list(gains)), ('smaller', smaller),
                            ('worst', [worst])):
            gain = gains_of(ours, theirs, names)[metric]
            figures[f'{metric}_gain_{kind}'] = gain['mean']
            figures[f'{metric}_gain_{kind}_se'] = gain['se']
        figures[f'{metric}_error_ratio'] = error(ours, metric, gains) / error(
            theirs, metric, gains)
    for key, name in (('seconds', 'cost_ratio'),
                      ('without_loading', 'cost_ratio_without_loading')):
        figures[name] = total(our_costs, key) / total(their_costs, key)
    return figures


def gain_rows(ours: List[Outcome], others: Dict[str,
                                                List[Outcome]]) -> List[dict]:
    """A row for each way that ours are compared with, and each network."""
    return [
        dict(
            subnet=name,
            against=way,
            **{
                f'{metric}_gain': gain
                for metric, gain in gains.items()
            }) for way, theirs in others.items()
        for name, gains in gains_by_network(ours, theirs).items()
    ]


def rows_of(outcomes: Dict[str, List[Outcome]],
            family: ResNetFamily) -> List[dict]:
    """A row for each network and method: means and their standard errors."""
    rows = []
    for name, subnet in family.desired.items():
        for method, of_seeds in outcomes.items():
            if name not in of_seeds[0].accuracies:
                continue
            row = dict(
                subnet=name,
                method=method,
                widths=list(subnet.widths),
                depths=list(subnet.depths),
                params=family.params(subnet),
                flops=family.flops(subnet))
            for metric in METRICS:
                row[metric] = mean_and_error(
                    [each.accuracies[name][metric] for each in of_seeds])
            rows.append(row)
    return rows


def probes_of(of_seeds: List[Outcome]) -> List[dict]:
    """A row for each network: linear probes alone, and jointly.

    With what jointly one layer for each gains over one that is sliced, paired
    by seed.
    """
    kinds = ('linear', *(f'linear_{probe}' for probe in PROBES))
    rows = []
    for name in of_seeds[0].accuracies:
        by_kind = {
            kind: [each.accuracies[name][kind] for each in of_seeds]
            for kind in kinds
        }
        gains = [
            one - other for one, other in zip(by_kind['linear_switchable'],
                                              by_kind['linear_slimmable'])
        ]
        rows.append(
            dict(
                subnet=name,
                **{
                    kind: mean_and_error(of)
                    for kind, of in by_kind.items()
                },
                switchable_gain=mean_and_error(gains)))
    return rows


def cumulative_costs(costs: Dict[str, Costs]) -> Dict[str, List[float]]:
    """By way, the seconds for the first network, two of them, ...

    The first way is the one on a supernet.
    """
    seconds = {
        way: list(accumulate(cost['seconds'] for cost in of_way))
        for way, of_way in costs.items()
    }
    # One training of the supernet gives them all.
    method, alone, *_ = seconds
    seconds[method] *= len(seconds[alone])
    return seconds


def table(report: dict) -> str:
    """The networks, and what the comparisons come to, in Markdown."""
    return (f'{results_table(report["rows"])}\n\n'
            f'{results_table(comparisons(report))}')


def draw(report: dict) -> Figure:
    """Accuracy against FLOPs, and cost against the number of networks."""
    figure = Figure(figsize=(13, 4), layout='constrained')
    panels = figure.subplots(1, 3)
    rows = report['rows']
    for index, (method, costs) in enumerate(report['costs'].items()):
        points = [row for row in rows if row['method'] == method]
        for panel, metric in zip(panels, ('knn', 'linear')):
            # Not joined: the next in FLOPs may be narrower and deeper.
            panel.errorbar([row['flops'] for row in points],
                           [100 * row[metric]['mean'] for row in points],
                           [100 * row[metric]['se'] for row in points],
                           fmt='o',
                           capsize=3,
                           color=f'C{index}',
                           label=METHODS[method])
        numbers = range(1, len(costs) + 1)
        panels[2].plot(numbers, costs, color=f'C{index}', marker='o')
    for panel, metric in zip(panels, ('knn', 'linear')):
        panel.set(title=METRICS[metric], ylabel='accuracy (%)')
        flops_axis(panel)
        panel.grid(alpha=0.3)
    panels[0].legend()
    panels[2].set(
        title='cost of pre-training',
        xlabel='desired networks, the largest first',
        ylabel=report['seconds'],
        xticks=numbers)
    panels[2].set_ylim(bottom=0)
    panels[2].grid(alpha=0.3)
    return figure


def choose(sides: Sides, way: str, network: str,
           pool: ProcessPoolExecutor) -> Tuple[Setting, List[dict]]:
    """The best setting of a network, see :func:`choose_setting`."""

    def accuracies(settings: List[Setting],
                   seeds: List[int]) -> List[List[float]]:
        groups = [[sides.job(way, network, each, seed)] for each in settings
                  for seed in seeds]
        if way == 'seed':
            sides.restore_teachers(chain(*groups), seeds, pool)
        outcomes = iter(run_all(groups, sides.folder, pool))
        return [[next(outcomes).mean('knn', 'linear') for _ in seeds]
                for _ in settings]

    # SEED's teacher is frozen.
    momenta = () if way == 'seed' else sides.budget.momenta
    return choose_setting(f'{METHODS[way]}, {network}', accuracies,
                          sides.budget.rates, momenta,
                          sides.budget.setting_seeds, sides.budget.widen)


def compare(args: argparse.Namespace, method: str,
            pool: ProcessPoolExecutor) -> dict:
    """Train all, and put the report together.

    Args:
        args (Namespace): The command's.
        method (str): What trains the supernet.
        pool (ProcessPoolExecutor): From :func:`workers`.

    Returns:
        dict: What the command writes as JSON, but for ``command``.
    """
    sides, own = (Sides(args, method, dns=dns) for dns in (args.dns, OWN_DNS))
    check_images(sides.place, sides.folder)
    own.best = sides.best
    first = [method, sides.alone]
    # Behind them: SEED's teacher is the largest network trained by BYOL.
    last = ['seed'] if method == 'dspnet' and args.seed_runs else []
    settings: Dict[str, Dict[str, dict]] = {}
    by_way: Dict[str, List[Outcome]] = {}

    def choose_for(ways: List[str]) -> None:
        say(f'{", ".join(METHODS[way] for way in ways)}: the best settings by '
            f'seed {", ".join(map(str, own.setting_seeds))}, not reported')
        pairs = [(way, network) for way in ways
                 for network in own.networks(way)]
        # Side by side, so that no process waits for another's last training.
        with ThreadPoolExecutor(len(pairs)) as threads:
            chosen = list(
                threads.map(lambda pair: choose(own, *pair, pool), pairs))
        for (way, network), (best, tried) in zip(pairs, chosen):
            sides.best.setdefault(way, {})[network] = best
            settings.setdefault(way, {})[network] = dict(
                best=best._asdict(), tried=tried)

    def train(ways: List[str], seeds: List[int]) -> None:
        say(f'{", ".join(METHODS[way] for way in ways)}: seeds '
            f'{", ".join(map(str, seeds))}')
        # Ways in turn, so that what slows the machine slows all of them.
        groups = [sides.jobs(way, seed) for seed in seeds for way in ways]
        if 'seed' in ways:
            sides.restore_teachers(chain(*groups), seeds, pool)
        outcomes = run_all(groups, sides.folder, pool)
        for index, way in enumerate(ways):
            by_way[way] = outcomes[index::len(ways)]

    choose_for(first)
    with ThreadPoolExecutor(1) as thread:
        chosen = [thread.submit(choose_for, [way]) for way in last]
        train(first, args.seeds)
        for each in chosen:
            each.result()
    for way in last:
        train([way], args.seeds[:args.seed_runs])
    brief = Sides(args, method, dns=args.dns, epochs=COST_EPOCHS)
    costs = costs_of(sides, brief, list(by_way), args.seeds[0], pool)
    figures: Dict[str, float] = {}
    for prefix, way in (('', sides.alone), ('seed_', 'seed')):
        if way in by_way:
            compared = figures_of(by_way[method], by_way[way], costs[method],
                                  costs[way])
            figures.update({
                f'{prefix}{name}': value
                for name, value in compared.items()
            })
    report: Dict[str, List[dict]] = {
        'gains':
        gain_rows(by_way[method], {
            way: of_seeds
            for way, of_seeds in by_way.items() if way != method
        })
    }
    if method.startswith('slimclr'):
        report['probes'] = probes_of(by_way[method])
    return dict(
        report,
        figures=figures,
        rows=rows_of(by_way, sides.family),
        seconds=SECONDS,
        costs=cumulative_costs(costs),
        cost_epochs=COST_EPOCHS,
        by_seed={
            way: [each.as_json() for each in of_seeds]
            for way, of_seeds in by_way.items()
        },
        settings=settings,
        budget=sides.budget._asdict(),
        seeds=args.seeds,
        setting_seeds=own.setting_seeds,
        versions=trained_with([
            each for outcome in chain(*by_way.values())
            for each in outcome.versions
        ]))


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse a comparison's arguments; ``seeds`` becomes a list of them.

    Args:
        parser (ArgumentParser): May have arguments of its own.

    Raises:
        InputError: If a value is not allowed.
    """
    parser.add_argument(
        '--data',
        required=True,
        help='"digits" (embedded), or a folder that holds train/CLASS/ and '
        'test/CLASS/ (or val/CLASS/) with images, those of train of one size')
    parser.add_argument(
        '--method',
        default='dspnet',
        choices=BUILT_ON,
        help='what trains the supernet (default: %(default)s)')
    parser.add_argument(
        '--dns',
        type=int,
        default=OWN_DNS,
        choices=DEPTHS,
        help='how many desired networks (default: %(default)s)')
    parser.add_argument(
        '--budget',
        default='quick',
        choices=('quick', 'full', 'gpu'),
        help='quick: minutes on 2 cores; full: hours; gpu: all images of a '
        'folder, as the config says (default: %(default)s)')
    add_trial_options(parser)
    args = parser.parse_args()
    check_trial_options(args)
    return args


def check_earlier(path: str, args: argparse.Namespace) -> dict:
    """Refuse to replace what is no report, or one of other data or seeds.

    Args:
        path (str): Where the report goes.
        args (Namespace): The command's. More of the same seeds may replace
            fewer.

    Returns:
        dict: The report, if there is one that may be replaced.

    Raises:
        InputError: If such a file is there.
    """
    if not os.path.exists(path):
        return {}
    report = read(path, OF_ANY, remedy='give another --out or move the file')
    _, earlier = trained_on(report)
    if os.path.normpath(earlier) != os.path.normpath(args.data):
        raise InputError(f'{path} is a report of {earlier}, and would be one '
                         f'of {args.data}: give another --out')
    check_seeds(path, report, args.seeds)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--seed-runs',
        type=int,
        metavar='N',
        help='compare DSPNet with SEED as well, on the first N of the seeds; '
        '0 leaves SEED out (default: on all)')
    args = parse_args(parser)
    if args.seed_runs is None:
        args.seed_runs = len(args.seeds)
    elif args.method != 'dspnet':
        raise InputError('--seed-runs is for --method dspnet, not for '
                         f'{args.method}: leave it out')
    if args.seed_runs != 0 and not 2 <= args.seed_runs <= len(args.seeds):
        raise InputError(f'--seed-runs {args.seed_runs} is not allowed: give '
                         f'0, or from 2 to the {len(args.seeds)} of --seeds')
    method = args.method
    stem = report_stem(args, 'once_vs_one_by_one',
                       f'{report_name(args)}{args.dns}')
    check_writable(f'{stem}.json')
    earlier = check_earlier(f'{stem}.json', args)
    compared = len(earlier.get('by_seed', {}).get('seed', []))
    if compared > args.seed_runs:
        raise InputError(
            f'{stem}.json compares with SEED on {compared} seeds, '
            'which would be lost: give as many --seed-runs, or '
            'another --out')
    with workers(args.processes) as pool:
        report = compare(args, method, pool)
    report['command'] = command_line(__file__)
    write_json(f'{stem}.json', report)
    text = table(report)
    with whole_file(f'{stem}.md') as path, open(path, 'w') as file:
        file.write(f'{text}\n')
    with whole_file(f'{stem}.png') as path:
        draw(report).savefig(path, format='png', dpi=150)
    print(text)
    print(f'report: {stem}.json, table: {stem}.md, picture: {stem}.png')


if __name__ == '__main__':
    run(main)
