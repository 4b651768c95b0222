#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Find the sub-network that suits a labelled task, without fine-tuning any.

PLACE is a folder that slim_export.py wrote into, or a training config and its
checkpoint, where sub-networks that have stages in common share the work. SDR's
unified network is one of those ranked: the best sub-network may still know too
little of a task that is of no cluster.
"""
import argparse
import os
import shutil
import sys
import tempfile
import time
from typing import (Dict, Iterator, List, NamedTuple, Optional, Sequence, Set,
                    Tuple)

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from dspnet_mm.checkpoint import check_exists
from dspnet_mm.cli import add_options, command_line, markdown_table, run
from dspnet_mm.clustering import backbone_of
from dspnet_mm.device import check_device
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import (ImageFormat, extract_features, iterate, pick,
                                  pick_balanced)
from dspnet_mm.evaluation.report import labelled_cfgs, labelled_datasets
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.grouped_family import UNIFIED
from dspnet_mm.models import SDR
from dspnet_mm.routing import METRICS, check_task, subnets_features
from dspnet_mm.slimming import (CALIBRATION_IMAGES, export_subnets,
                                find_plain_files, load_config, load_plain,
                                load_supernet, recalibrate)
from dspnet_mm.slimming.plain_file import INDEX_NAME, read_index
from dspnet_mm.versions import versions

RANKING_NAME = 'ranking.json'
# What it is called until its best network is there, too.
_NEW_RANKING_NAME = 'ranking-new.json'


class Task(NamedTuple):
    """The task's training images.

    Args:
        dataset (dict): Their config.
        inputs (Tensor): Shape (N, 3, H, W).
        labels (ndarray): Shape (N, ).
        calibration (list[int]): Which images batch norm is recalibrated on.
        batch_size (int): How many images are computed at once.
    """
    dataset: dict
    inputs: torch.Tensor
    labels: np.ndarray
    calibration: List[int]
    batch_size: int

    @classmethod
    def load(cls, place: str, image_format: ImageFormat, metric: str,
             max_images: Optional[int], seed: int, device: str) -> 'Task':
        """Load images, at most so many, each class in proportion."""
        dataset = labelled_datasets(place, image_format.input_size)[0]
        labels = np.array([
            dataset.get_data_info(index)['gt_label']
            for index in range(len(dataset))
        ])
        chosen, source = list(range(len(labels))), f'--task {place}'
        if max_images is not None and max_images < len(labels):
            chosen = pick_balanced(labels, max_images / len(labels), seed)
            source += f' with --max-images {max_images}'
        check_task(labels[chosen],
                   dataset.metainfo.get('classes', np.unique(labels)), metric,
                   source)
        inputs = torch.cat(
            [inputs for inputs, _ in iterate(dataset, image_format, chosen)])
        # The same images wherever it is built.
        cfg = dict(labelled_cfgs(place)[0], indices=chosen)
        return cls(cfg, inputs.to(device), labels[chosen],
                   pick(chosen, CALIBRATION_IMAGES, seed),
                   image_format.batch_size)

    def features(self, backbone: nn.Module) -> np.ndarray:
        """A plain network's features."""
        backbone.to(self.inputs.device).eval()
        batches = self.inputs.split(self.batch_size)
        return extract_features(backbone, ((batch, np.empty(len(batch)))
                                           for batch in batches))[0]


class Checkpoint:
    """The sub-networks that a training desires, and SDR's unified network.

    Their batch norm is measured on the task's images, for the ranking as for
    the best.
    """

    def __init__(self, args: argparse.Namespace, config: str,
                 checkpoint: str) -> None:
        self.cfg = load_config(config, args.cfg_options)
        check_exists(checkpoint)
        self.checkpoint = checkpoint
        self.model = load_supernet(self.cfg, checkpoint)
        self.device = args.device
        self.seed = args.seed

    @property
    def names(self) -> List[str]:
        """What is ranked."""
        return [*self.model.family.exported]

    @property
    def image_format(self) -> ImageFormat:
        """What the networks expect."""
        return ImageFormat.from_config(
            self.cfg.model.get('data_preprocessor'),
            self.model.family.input_size)

    def features(self, task: Task) -> Iterator[Tuple[str, np.ndarray]]:
        """Each network's name and features."""
        subnets = {
            name: self.model.as_trained(subnet)
            for name, subnet in self.model.family.desired.items()
        }
        different = len({*subnets.values()})
        if different < len(subnets):
            print(
                f'only {different} of the {len(subnets)} sub-networks are '
                'distinct at this checkpoint: those that have not parted yet '
                'score alike',
                file=sys.stderr)
        yield from subnets_features(
            self.model.backbone.to(self.device), subnets, task.inputs,
            task.calibration, task.batch_size)
        if isinstance(self.model, SDR):
            backbone = backbone_of(self.model).to(self.device)
            recalibrate(backbone, [task.inputs[task.calibration]])
            yield UNIFIED, task.features(backbone)

    def export(self, name: str, task: Task, out: str) -> None:
        """Slim the best."""
        cfg = Config(self.cfg.to_dict())
        cfg.train_dataloader.dataset = task.dataset
        export_subnets(
            cfg,
            self.checkpoint, {name: self.model.family.exported[name]},
            out,
            seed=self.seed,
            device=self.device)


class Exports:
    """Networks that were exported, ranked as they are."""

    def __init__(self, folder: str) -> None:
        if os.path.isfile(folder):
            raise InputError(f'{folder} is no folder: give one that '
                             'slim_export.py wrote into, or CONFIG and '
                             'CHECKPOINT')
        self.folder = folder
        # Their files, by name: all of the networks may be too much to hold.
        self.paths: Dict[str, str] = {}
        formats = []
        for path in find_plain_files([folder]):
            network = load_plain(path)
            self.paths[network.meta['name']] = path
            if network.image_format not in formats:
                formats.append(network.image_format)
        if not self.paths:
            raise InputError(f'{folder} holds no network: give a folder that '
                             'slim_export.py wrote into')
        if len(formats) > 1:
            raise InputError(f'the networks of {folder} expect images of '
                             f'{len(formats)} formats: export those of one '
                             'training into a folder')
        self.image_format, = formats

    @property
    def names(self) -> List[str]:
        """What is ranked."""
        return [*self.paths]

    def features(self, task: Task) -> Iterator[Tuple[str, np.ndarray]]:
        """Each network's name and features."""
        for name, path in self.paths.items():
            yield name, task.features(load_plain(path).backbone)

    def export(self, name: str, task: Task, out: str) -> None:
        """Copy the best."""
        entry, = (
            entry for entry in read_index(self.folder)
            if entry['name'] == name)
        for file in entry['files']:
            shutil.copy(os.path.join(self.folder, os.path.basename(file)), out)
        write_json(os.path.join(out, INDEX_NAME), dict(subnets=[entry]))


def check_out(out: str, place: str, force: bool) -> None:
    """Refuse a folder whose files are not to be replaced.

    Args:
        out (str): Where the best network and the ranking go.
        place (str): The folder that networks come from, or a config.
        force (bool): Replace what an earlier call wrote.

    Raises:
        InputError: If the folder holds anything that this tool, or in this
            call, may not replace.
    """
    if os.path.realpath(out) == os.path.realpath(place):
        raise InputError(f'--out {out} is where the networks come from: give '
                         'another folder')
    ranked = os.path.exists(os.path.join(out, RANKING_NAME))
    if ranked and not force:
        raise InputError(f'{out} already holds {RANKING_NAME}: give another '
                         'folder, or --force to replace it and its network')
    if not ranked and os.path.exists(os.path.join(out, INDEX_NAME)):
        raise InputError(f'{out} already holds {INDEX_NAME} of networks that '
                         'were exported otherwise: give another folder')


def check_others(out: str, names: Sequence[str]) -> None:
    """Refuse a folder with files of the names that the best will have.

    Args:
        out (str): Where the best network and the ranking go.
        names (Sequence[str]): Of the networks that may be the best.

    Raises:
        InputError: If a file there is not of an earlier call.
    """
    if not os.path.isdir(out):
        return
    others = {
        name
        for name in {*os.listdir(out)} - written(out)
        if name.startswith(tuple(f'{network}.' for network in names))
    }
    if others:
        raise InputError(f'{out} already holds {min(others)}, which no '
                         'earlier call wrote: give another folder, or remove '
                         'it')


def written(out: str) -> Set[str]:
    """The files of the networks that an earlier call put there."""
    return {
        os.path.basename(file)
        for entry in read_index(out, missing_ok=True)
        for file in entry['files']
    }


def publish(export: str, out: str) -> None:
    """Put what was found into the place of what an earlier call found.

    Args:
        export (str): The folder that the best network was written into, on
            the same file system.
        out (str): Where it goes, and where the new ranking is; see
            :func:`check_out`.
    """
    earlier = written(out)
    found = {name: os.path.join(export, name) for name in os.listdir(export)}
    found[RANKING_NAME] = os.path.join(out, _NEW_RANKING_NAME)
    # The index last: what it lists is there, and so is the ranking by which
    # a later call knows that it may replace it.
    for name in sorted(found, key=lambda name: name == INDEX_NAME):
        os.replace(found[name], os.path.join(out, name))
    for name in earlier - {*found}:
        if os.path.exists(os.path.join(out, name)):
            os.remove(os.path.join(out, name))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'place',
        nargs='+',
        metavar='PLACE',
        help='EXPORTS, or CONFIG and CHECKPOINT')
    parser.add_argument(
        '--task',
        required=True,
        help='"digits", or a folder that holds train/CLASS/ and test/CLASS/, '
        'of which the training images are looked at')
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='where the best network and ranking.json go')
    parser.add_argument(
        '--metric',
        choices=[*METRICS],
        default='knn',
        help='by what to rank: the accuracy of 20 nearest neighbours among '
        'the other images, of linear probes on images left out, or LogME '
        '(default: %(default)s)')
    parser.add_argument(
        '--top',
        type=int,
        default=5,
        metavar='N',
        help="how many to print besides SDR's unified network; ranking.json "
        'holds all (default: %(default)s)')
    parser.add_argument(
        '--max-images',
        type=int,
        metavar='N',
        help='about how many of the images to look at, each class in '
        'proportion (default: all)')
    add_options(parser, 'seed', 'device', 'force', 'cfg-options')
    args = parser.parse_args()
    if len(args.place) > 2:
        parser.error('give EXPORTS, or CONFIG and CHECKPOINT')
    return args


def main() -> None:
    args = parse_args()
    for name in ('top', 'max_images'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name.replace("_", "-")} {value} is not '
                             'allowed: give at least 1')
    check_device(args.device)
    ranking_path = os.path.join(args.out, RANKING_NAME)
    check_writable(ranking_path)
    check_out(args.out, args.place[0], args.force)
    networks = Checkpoint(args, *args.place) if len(
        args.place) == 2 else Exports(*args.place)
    check_others(args.out, networks.names)
    number = len(networks.names)
    task = Task.load(args.task, networks.image_format, args.metric,
                     args.max_images, args.seed, args.device)
    score = METRICS[args.metric]
    begin = time.monotonic()
    scores: Dict[str, float] = {}
    for name, features in networks.features(task):
        scores[name] = score(features, task.labels)
        if len(scores) % max(1, number // 10) == 0:
            print(
                f'{len(scores)} of {number} networks',
                file=sys.stderr,
                flush=True)
    seconds = time.monotonic() - begin
    ranking = sorted(scores, key=lambda name: (-scores[name], name))
    rows = [dict(subnet=name, score=scores[name]) for name in ranking]
    report = dict(
        metric=args.metric,
        rows=rows,
        unified=scores.get(UNIFIED),
        images=len(task.labels),
        seconds=seconds,
        seeds=[args.seed],
        versions=versions(),
        command=command_line(__file__))
    # It took the time, so that a failure from here on must not cost it; and
    # what an earlier call found stays until all is there.
    new_ranking = os.path.join(args.out, _NEW_RANKING_NAME)
    write_json(new_ranking, report)
    with tempfile.TemporaryDirectory(prefix='.route-', dir=args.out) as folder:
        try:
            networks.export(ranking[0], task, folder)
        except BaseException:
            print(f'the ranking is kept: {new_ranking}', file=sys.stderr)
            raise
        publish(folder, args.out)
    shown = [(str(place), row['subnet'], f'{row["score"]:.4f}')
             for place, row in enumerate(rows, 1)
             if place <= args.top or row['subnet'] == UNIFIED]
    print(markdown_table(('', 'sub-network', args.metric), shown))
    print(f'{number} networks on {len(task.labels)} images in '
          f'{seconds:.0f} s; {ranking[0]} and ranking.json: {args.out}')


if __name__ == '__main__':
    run(main)
