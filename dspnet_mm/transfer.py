# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What a fine-tuning config takes from an exported network.

The environment says which network: ``EXPORT`` is the path of a ``NAME.pth``
that slim_export.py wrote. With ``INIT=random`` its weights are left out, and
the toolbox initialises the same network as it does any other.
"""
import logging
import os
from functools import lru_cache
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcls.registry import METRICS, MODELS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from .checkpoint import load_checkpoint, load_every_tensor
from .errors import InputError
from .evaluation.report import labelled_cfgs
from .slimming.plain_file import find_plain_files, load_plain, read_index

_INITS = ('slimmed', 'random')


def _path() -> str:
    path = os.environ.get('EXPORT')
    if not path:
        raise InputError('no exported network is given: set EXPORT to the '
                         'path of a .pth file that tools/slim_export.py wrote')
    if os.path.isfile(path) and path.endswith('.pth'):
        return os.path.abspath(path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or '.'
    names = [
        os.path.join(folder, entry['name'] + '.pth')
        for entry in read_index(folder, missing_ok=True)
    ]
    found = 'is no .pth file' if os.path.exists(path) else 'does not exist'
    wanted = ' or '.join(names) or 'one that tools/slim_export.py wrote'
    raise InputError(f'EXPORT={path} {found}: give {wanted}')


@lru_cache(maxsize=None)
def _meta(path: str) -> dict:
    return load_plain(path).meta


def backbone(stem: Optional[str] = None, **kwargs) -> dict:
    """The exported network's config, in the place of a toolbox's backbone.

    Args:
        stem (str, optional): The only stem that a config is made for, see
            :class:`ResNetFamily`: anchors have the strides of the stages.
            Defaults to None, any.
        **kwargs: Further arguments of the toolbox's ResNet, e.g.
            ``out_indices``, ``frozen_stages``, ``norm_cfg``, ``norm_eval``,
            ``strides``, ``dilations``, ``with_cp``.

    Returns:
        dict: A config that replaces the backbone of the config it is merged
        into.

    Raises:
        InputError: If ``EXPORT`` or ``INIT`` is wrong, or the stem another.
    """
    path = _path()
    cfg = dict(_meta(path)['backbone'], **kwargs, _delete_=True)
    # A stock ResNet has no other.
    found = cfg.get('stem', 'imagenet')
    if stem not in (None, found):
        raise InputError(f'{path} has the stem {found!r}, and this config is '
                         f'made for {stem!r}: give a network whose family '
                         f'was pre-trained with model.family.stem={stem}')
    init = os.environ.get('INIT', 'slimmed')
    if init not in _INITS:
        raise InputError(f'INIT={init} is not allowed: choose from '
                         f'{", ".join(_INITS)}')
    if init == 'slimmed':
        # MMClassification would set to zero what was loaded just before.
        cfg.update(
            zero_init_residual=False,
            init_cfg=dict(type='SlimmedInit', checkpoint=path))
    return cfg


def out_channels() -> List[int]:
    """The channels that each stage of the exported network puts out.

    Raises:
        InputError: If ``EXPORT`` is wrong.
    """
    return list(_meta(_path())['out_channels'])


def normalization() -> dict:
    """Mean, standard deviation and order of channels of the pre-training.

    Returns:
        dict: ``mean``, ``std`` (None without normalisation) and
        ``bgr_to_rgb`` for a data preprocessor.

    Raises:
        InputError: If ``EXPORT`` is wrong.
    """
    return {
        key: value if value != [] else None
        for key, value in _meta(_path())['image_format'].items()
    }


def input_size() -> int:
    """Height and width in pixels of the images of the pre-training.

    Raises:
        InputError: If ``EXPORT`` is wrong.
    """
    return _meta(_path())['input_size']


def labelled_images(data_root: str) -> Tuple[dict, dict, int]:
    """A user's labelled images.

    Args:
        data_root (str): Holds train/CLASS/ and test/CLASS/ (or val/CLASS/).

    Returns:
        tuple[dict, dict, int]: The configs of training and of test images,
        without a pipeline, and the number of classes.

    Raises:
        InputError: If there are no such folders, or of different classes.
    """
    if not os.path.isdir(data_root):
        raise InputError(f'{data_root} is not a folder: set DATA_ROOT to one '
                         'that holds train/CLASS/ and test/CLASS/')
    train, test = labelled_cfgs(data_root)
    folders = os.scandir(train['data_root'])
    return train, test, sum(entry.is_dir() for entry in folders)


def folder_networks() -> Tuple[List[str], List[str], List[int]]:
    """All networks of the folder that the exported network lies in.

    Returns:
        tuple[list[str], list[str], list[int]]: Their names, files and
        channels of the last stage, the largest network first.

    Raises:
        InputError: If ``EXPORT`` is wrong, the networks do not expect the
            same images, or ``INIT`` wants them without their weights.
    """
    init = os.environ.get('INIT', 'slimmed')
    if init != 'slimmed':
        raise InputError(f'INIT={init} is not allowed here, where networks '
                         'stay as they were exported: leave it out')
    folder = os.path.dirname(_path())
    paths = find_plain_files([folder])
    networks = [load_plain(path) for path in paths]
    if any(network.image_format != networks[0].image_format
           for network in networks):
        raise InputError(f'the networks in {folder} do not all expect the '
                         'same images: give a folder with those of one family')
    metas, paths = zip(*sorted(
        zip((network.meta for network in networks), paths),
        key=lambda each: (each[0]['out_channels'][-1], each[0]['params']),
        reverse=True))
    return ([meta['name'] for meta in metas], list(paths),
            [meta['out_channels'][-1] for meta in metas])


@MODELS.register_module()
class ExportedNetworks(BaseModule):
    """Exported networks side by side, frozen: what each sees in an image.

    Args:
        paths (Sequence[str]): Their files, which slim_export.py wrote.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            load_plain(path).backbone for path in paths)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> nn.Module:
        """Batch norm keeps its statistics in training, too."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        """Run each network.

        Args:
            images (Tensor): Shape (N, C, H, W).

        Returns:
            tuple[Tensor]: The last stage's output of each network.
        """
        return tuple(network(images)[-1] for network in self.networks)


@METRICS.register_module()
class SubnetAccuracy(BaseMetric):
    """The accuracy of each network, in percent, of :class:`JointLinearHead`.

    Args:
        names (Sequence[str]): What they are called.
    """
    default_prefix = 'accuracy'

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep which networks are right about each image."""
        for sample in data_samples:
            right = sample['predicted'] == sample['gt_label']['label']
            self.results.append(right.cpu().numpy())

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """The means over images, by name."""
        return dict(zip(self.names, 100. * np.mean(results, axis=0)))


@WEIGHT_INITIALIZERS.register_module()
class SlimmedInit:
    """Loads an exported network's weights, every one of them.

    MMEngine's 'Pretrained' trains on with what it found, be it nothing.

    Args:
        checkpoint (str): A ``NAME.pth`` that slim_export.py wrote.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load them.

        Args:
            module (Module): The network, as its toolbox built it.

        Raises:
            InputError: If the file cannot be read or does not fit.
        """
        state = load_checkpoint(self.checkpoint)['state_dict']
        load_every_tensor(
            module, state,
            f'{self.checkpoint} does not fit {type(module).__name__}',
            'Give the network that the config was made for')
        print_log(
            f'loaded all {len(state)} tensors of {self.checkpoint} into '
            f'{type(module).__name__}',
            logger='current',
            level=logging.INFO)
