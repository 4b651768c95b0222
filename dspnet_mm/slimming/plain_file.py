# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The files that exported networks are kept in."""
import io
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

import torch
from torch import nn

from dspnet_mm.checkpoint import load_checkpoint, sha256_of
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import ImageFormat
from .slim import build_plain_backbone

INDEX_NAME = 'subnets.json'
# The largest absolute difference that a file may make to outputs, in float32.
TOLERANCE = 1e-5
# What a file may have us build, and with which arguments: what export_subnets
# writes. Others are configs, e.g. init_cfg, and MMEngine's registry imports
# and calls whatever a config names.
_BACKBONE_KEYS = {
    name: ('type', *keys, 'in_channels', 'zero_init_residual')
    for name, keys in dict(
        ResNet=('depth', 'stem_channels', 'base_channels'),
        SlimResNet=('block', 'inner_channels', 'depths', 'stem')).items()
}
# They become arguments of a data preprocessor.
_IMAGE_FORMAT_KEYS = ('mean', 'std', 'bgr_to_rgb')

# What else reports and tools read.
_META_TYPES = dict(
    name=str,
    method=str,
    input_size=int,
    widths=list,
    depths=list,
    params=int,
    flops=int,
    out_channels=list)


@dataclass(frozen=True)
class PlainNetwork:
    """An exported sub-network.

    Args:
        backbone (nn.Module): The plain backbone, in evaluation mode.
        meta (dict): What the file says of it.
    """
    backbone: nn.Module
    meta: Dict[str, Any]

    @property
    def image_format(self) -> ImageFormat:
        """What it expects of its input."""
        return ImageFormat.from_config(self.meta['image_format'],
                                       self.meta['input_size'])


def save_plain(backbone: nn.Module, meta: Dict[str, Any], path: str) -> None:
    """Write a plain backbone so that ``weights_only=True`` loads it.

    Args:
        backbone (nn.Module): The backbone.
        meta (dict): Plain values that describe it.
        path (str): The file.
    """
    # A plain dict: a state_dict's class carries metadata of its own.
    save_tensors(dict(state_dict=dict(backbone.state_dict()), meta=meta), path)


def save_tensors(content: Dict[str, Any], path: str) -> None:
    """Write what ``torch.load`` loads, or say that a disk is full.

    Args:
        content (dict): Tensors and plain values.
        path (str): The file.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    # Not by torch.save, which does not say that a disk is full.
    with open(path, 'wb') as file:
        file.write(buffer.getvalue())


def load_plain(path: str, out_indices: Sequence[int] = (3, )) -> PlainNetwork:
    """Load an exported network.

    Args:
        path (str): A ``NAME.pth``.
        out_indices (Sequence[int]): Which stages put out, from 0. Defaults
            to (3, ), the last one.

    Returns:
        PlainNetwork: The network, on the CPU.

    Raises:
        InputError: If the file is not one that was exported, or asks for
            more than such a file does.
    """
    checkpoint = load_checkpoint(path)
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    cfg = meta.get('backbone')
    if not isinstance(cfg, dict) or cfg.get('type') not in [*_BACKBONE_KEYS]:
        raise InputError(f'{path} was not written by slim_export.py: its meta '
                         'has no plain backbone. Export the checkpoint first')
    for part, keys in (('backbone', _BACKBONE_KEYS[cfg['type']]),
                       ('image_format', _IMAGE_FORMAT_KEYS)):
        _check_part(path, part, meta.get(part), keys)
    wrong = [
        key for key, kind in _META_TYPES.items()
        if not isinstance(meta.get(key), kind)
    ]
    if wrong:
        raise InputError(f'{path}: {wrong[0]} of its meta is missing or not '
                         'what slim_export.py writes. Export the checkpoint '
                         'again')
    try:
        backbone = build_plain_backbone(
            dict(cfg, out_indices=tuple(out_indices)))
        backbone.load_state_dict(checkpoint['state_dict'], strict=True)
    except Exception as error:
        # Whatever a changed file makes of our own classes.
        reason = str(error).strip().split('\n')[0]
        raise InputError(f'{path} contradicts itself ({reason}): export it '
                         'again')
    backbone.eval()
    return PlainNetwork(backbone, meta)


def _check_part(path: str, part: str, values: Any,
                keys: Sequence[str]) -> None:
    """Refuse a part of the meta that could have anything else built."""
    remedy = 'nothing of it was built. Export the checkpoint again'
    if not isinstance(values, dict):
        raise InputError(f'{path}: {part} of its meta is no dict; {remedy}')
    for key, value in values.items():
        if key not in keys:
            raise InputError(f'{path}: {part}.{key} is not allowed, allowed '
                             f'are {", ".join(keys)}; {remedy}')
        items = value if isinstance(value, (list, tuple)) else [value]
        if not all(
                isinstance(item, (bool, int, float, str, type(None)))
                for item in items):
            raise InputError(f'{path}: {part}.{key} is not allowed to be '
                             f'{str(value)[:99]!r}, allowed are plain values '
                             f'and lists of them; {remedy}')


def read_index(folder: str, missing_ok: bool = False) -> List[dict]:
    """Read which networks a folder holds.

    Args:
        folder (str): The folder that slim_export.py wrote into.
        missing_ok (bool): Take a folder without index for an empty one.
            Defaults to False.

    Returns:
        list[dict]: An entry for each network.

    Raises:
        InputError: If there is no index, or it cannot be read.
    """
    path = os.path.join(folder, INDEX_NAME)
    if not os.path.exists(path):
        if missing_ok:
            return []
        raise InputError(f'{folder} holds no {INDEX_NAME}: give a folder that '
                         'slim_export.py wrote into')
    try:
        with open(path) as file:
            entries = json.load(file)['subnets']
        for entry in entries:
            name = entry['name']
            if os.path.basename(name) != name:
                raise ValueError(f'name {name!r} is a path')
            if f'{name}.pth' not in dict(entry['files']):
                raise ValueError(f'{name} has no file {name}.pth')
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} cannot be read ({error}): export again, '
                         'with --force')
    return entries


def find_plain_files(places: Sequence[str]) -> List[str]:
    """The networks' files among folders and files.

    Args:
        places (Sequence[str]): Folders that slim_export.py wrote into, and
            ``.pth`` files.

    Returns:
        list[str]: Paths of ``.pth`` files, those of a folder in its order.

    Raises:
        InputError: If a folder has no index, or a file is not the one that
            the index names.
    """
    paths = []
    for place in places:
        if not os.path.isdir(place):
            if not os.path.exists(place):
                raise InputError(f'{place} does not exist: give a folder that '
                                 'slim_export.py wrote into, or a .pth file')
            paths.append(place)
            continue
        for entry in read_index(place):
            name = f'{entry["name"]}.pth'
            path = os.path.join(place, name)
            if not os.path.exists(path):
                raise InputError(f'{path} is missing, but {INDEX_NAME} lists '
                                 'it: export it again, with --force')
            if sha256_of(path) != entry['files'][name]:
                raise InputError(f'{path} is not the file that {INDEX_NAME} '
                                 'lists (another SHA-256): export it again, '
                                 'with --force')
            paths.append(path)
    return paths
