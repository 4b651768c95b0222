# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Evaluates exported networks and keeps the results."""
import json
import logging
import math
import os
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from dspnet_mm.datasets.image_folder import EXTENSIONS
from dspnet_mm.device import check_device
from dspnet_mm.errors import InputError
from dspnet_mm.slimming import (CALIBRATION_IMAGES, build_plain_backbone,
                                find_plain_files, load_plain, recalibrate)
from dspnet_mm.slimming.plain_file import PlainNetwork
from .images import ImageFormat, evaluation_dataset, iterate, pick
from .probes import (check_neighbours, extract_features,
                     joint_linear_accuracies, knn_accuracy, linear_accuracy)

Features = Tuple[np.ndarray, np.ndarray]
BASELINES = ('random', 'pixels')
# Linear classifiers of all networks, trained jointly: one layer that is
# sliced, or one for each.
PROBES = ('slimmable', 'switchable')
# What is evaluated, by what tables and pictures call it.
METHODS = {
    'dspnet': 'DSPNet',
    'slimclr-mocov2': 'SlimCLR (MoCo v2)',
    'slimclr-mocov3': 'SlimCLR (MoCo v3)',
    'slimclr-simclr': 'SlimCLR (SimCLR)',
    'us3l': 'US3L',
    'sdr': 'SDR',
    'byol': 'BYOL, one by one',
    'mocov2': 'MoCo v2, one by one',
    'mocov3': 'MoCo v3, one by one',
    'seed': 'SEED, one by one',
    'random': 'random weights',
    'pixels': 'raw pixels'
}


def labelled_datasets(data: str, input_size: int) -> List[BaseDataset]:
    """The training and the test images to evaluate on.

    Args:
        data (str): 'digits', or a folder that holds ``train`` and ``test`` (or
            ``val``), each with a folder per class.
        input_size (int): Height and width in pixels.

    Returns:
        list[BaseDataset]: Training and test images.

    Raises:
        InputError: If there is no such data.
    """
    init_default_scope('mmselfsup')
    return [evaluation_dataset(cfg, input_size) for cfg in labelled_cfgs(data)]


def labelled_cfgs(data: str) -> List[dict]:
    """The configs of :func:`labelled_datasets`, without a pipeline."""
    if data == 'digits':
        return [
            dict(type='EmbeddedDigits', split=split)
            for split in ('train', 'test')
        ]
    return [
        # Else it passes over what pre-training takes.
        dict(
            type='mmcls.CustomDataset',
            data_root=folder,
            extensions=EXTENSIONS) for folder in class_folders(data)
    ]


def class_folders(data: str) -> List[str]:
    """The folders of training and test images, class by class.

    Args:
        data (str): A folder that holds train/CLASS/ and test/CLASS/ (or
            val/CLASS/).

    Returns:
        list[str]: The two folders.

    Raises:
        InputError: If there are no such folders, or of different classes, or
            of one alone.
    """
    if not os.path.isdir(data):
        raise InputError(f'{data} is not a folder: give "digits", or a folder '
                         'that holds train/CLASS/ and test/CLASS/')
    folders, classes = [], []
    for names in (('train', ), ('test', 'val')):
        found = [
            os.path.join(data, name) for name in names
            if os.path.isdir(os.path.join(data, name))
        ]
        if not found:
            raise InputError(f'{data} has no folder {" or ".join(names)}: '
                             'it must hold train/CLASS/ and test/CLASS/')
        classes.append(
            {entry.name
             for entry in os.scandir(found[0]) if entry.is_dir()})
        if not classes[-1]:
            raise InputError(f'{found[0]} holds no class folders: images must '
                             f'lie in {found[0]}/CLASS/')
        folders.append(found[0])
    odd = classes[0] ^ classes[1]
    if odd:
        raise InputError(f'training and test images of {data} have different '
                         f'classes ({", ".join(sorted(odd))} in one only): '
                         'give both the same class folders')
    if len(classes[0]) < 2:
        raise InputError(f'{data} has 1 class, {classes[0].pop()}: give at '
                         'least 2, to be told apart')
    return folders


def evaluate(
    places: Sequence[str],
    data: str,
    k: int = 20,
    baselines: Sequence[str] = (),
    seed: int = 0,
    device: str = 'cpu',
    progress: Callable[[str], None] = print,
    probes: Sequence[str] = ()
) -> List[dict]:
    """Evaluate exported networks on frozen features.

    Args:
        places (Sequence[str]): Folders that slim_export.py wrote into, and
            ``.pth`` files.
        data (str): See :func:`labelled_datasets`.
        k (int): Number of neighbours. Defaults to 20.
        baselines (Sequence[str]): 'random' evaluates each network's randomly
            initialised twin, too, its batch norm calibrated on training
            images; 'pixels' the images without a network. Defaults to ().
        seed (int): For the random twins and the joint probes' first weights.
            Defaults to 0.
        device (str): Where to compute. Defaults to 'cpu'.
        progress (Callable): Is told what is being done. Defaults to print.
        probes (Sequence[str]): Of ``PROBES``, which linear classifiers are
            trained for all exported networks of a folder jointly, see
            :func:`joint_linear_accuracies`. Defaults to ().

    Returns:
        list[dict]: A row for each: ``method``, ``subnet``, ``widths``,
        ``depths``, ``params``, ``flops``, and the accuracies ``knn`` and
        ``linear`` in [0, 1]; for an exported network also ``linear_NAME`` for
        each of ``probes``.

    Raises:
        InputError: If the input cannot be used.
    """
    check_device(device)
    paths = find_plain_files(places)
    networks = [load_plain(path) for path in paths]
    if not networks:
        raise InputError(f'{" ".join(places)} holds no network: give a folder '
                         'that slim_export.py wrote into, or .pth files')
    datasets: Dict[int, List[BaseDataset]] = {}
    for network in networks:
        size = network.meta['input_size']
        if size not in datasets:
            datasets[size] = labelled_datasets(data, size)
            # Before any image is decoded.
            check_neighbours(k, len(datasets[size][0]))
    rows = []
    by_folder: Dict[str, list] = {}
    for number, (path, network) in enumerate(zip(paths, networks), 1):
        progress(f'[{number}/{len(networks)}] {network.meta["name"]}')
        sets = datasets[network.meta['input_size']]
        features = _network_features(network, sets, device)
        row = _row(network.meta['method'], network.meta, features, k)
        rows.append(row)
        by_folder.setdefault(os.path.dirname(path), []).append((row, features))
        if 'random' in baselines:
            twin = random_twin(network, sets[0], seed, device)
            rows.append(
                _row('random', network.meta,
                     _network_features(twin, sets, device), k))
    for folder, exported in by_folder.items():
        # The largest comes first.
        exported.sort(
            key=lambda each: (each[1][0][0].shape[1], each[0]['params']),
            reverse=True)
        for probe in probes:
            progress(f'{probe} linear probe of {folder}')
            accuracies = joint_linear_accuracies(
                *zip(*(features for _, features in exported)),
                switchable=probe == 'switchable',
                seed=seed)
            for (row, _), accuracy in zip(exported, accuracies):
                row[f'linear_{probe}'] = accuracy
    if 'pixels' in baselines:
        progress('raw pixels')
        sets = next(iter(datasets.values()))
        nothing = dict(name='pixels', widths=[], depths=[], params=0, flops=0)
        rows.append(
            _row('pixels', nothing, [_pixels(dataset) for dataset in sets], k))
    # Each method's rows together, in the order in which they came.
    order = list(dict.fromkeys(row['method'] for row in rows))
    return sorted(rows, key=lambda row: order.index(row['method']))


def _network_features(network: PlainNetwork, datasets: List[BaseDataset],
                      device: str) -> List[Features]:
    backbone = network.backbone.to(device)
    return [
        extract_features(backbone, iterate(dataset, network.image_format))
        for dataset in datasets
    ]


def _pixels(dataset: BaseDataset) -> Features:
    raw = ImageFormat(dataset[0]['img'].shape[0])
    inputs, labels = zip(*iterate(dataset, raw))
    return (torch.cat(inputs).flatten(1).numpy(), np.concatenate(labels))


def random_twin(network: PlainNetwork, dataset: BaseDataset, seed: int,
                device: str) -> PlainNetwork:
    """The same network with random weights, its batch norm calibrated.

    Args:
        network (PlainNetwork): The network.
        dataset (BaseDataset): Training images to calibrate on.
        seed (int): For the weights and the choice of images.
        device (str): Where to compute.

    Returns:
        PlainNetwork: Its twin, as the supernet's training starts.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = build_plain_backbone(network.meta['backbone'])
        # MMEngine would log every tensor.
        logging.disable(logging.INFO)
        try:
            backbone.init_weights()
        finally:
            logging.disable(logging.NOTSET)
    backbone.to(device)
    batches = [
        inputs.to(device)
        for inputs, _ in iterate(dataset, network.image_format,
                                 pick(dataset, CALIBRATION_IMAGES, seed))
    ]
    recalibrate(backbone, batches)
    backbone.eval()
    return PlainNetwork(backbone, network.meta)


def _row(method: str, meta: dict, features: List[Features], k: int) -> dict:
    train, test = features
    return dict(
        method=method,
        subnet=meta['name'],
        widths=meta['widths'],
        depths=meta['depths'],
        params=meta['params'],
        flops=meta['flops'],
        knn=knn_accuracy(train, test, k),
        linear=linear_accuracy(train, test))


def read_report(path: str) -> dict:
    """Read a report.

    Args:
        path (str): A file that evaluate.py wrote.

    Returns:
        dict: With ``rows``, see :func:`evaluate`.

    Raises:
        InputError: If it cannot be read.
    """
    needed = {'method', 'subnet', 'flops', 'knn', 'linear'}
    try:
        with open(path) as file:
            report = json.load(file)
        if not isinstance(report, dict) or not report.get('rows'):
            raise ValueError('it has no rows')
        for row in report['rows']:
            if not needed <= set(row):
                missing = ', '.join(sorted(needed - set(row)))
                raise ValueError(f'a row lacks {missing}')
            for key, most in (('flops', math.inf), ('knn', 1), ('linear', 1)):
                if not 0 <= row[key] <= most or row[key] == math.inf:
                    raise ValueError(f'{key} is {row[key]}')
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}): give the '
                         'report.json that evaluate.py wrote')
    except (ValueError, TypeError) as error:
        raise InputError(f'{path} is no report ({error}): give '
                         'the report.json that evaluate.py wrote')
    return report
