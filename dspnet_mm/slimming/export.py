# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import shutil
import tempfile
from typing import Any, Callable, Dict, Iterable, List, Sequence

import torch
from mmengine.config import Config

from dspnet_mm.checkpoint import sha256_of
from dspnet_mm.device import check_device
from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.evaluation import ImageFormat, evaluation_dataset, iterate, pick
from dspnet_mm.models import SlimmableResNet, activate
from dspnet_mm.subnet import Subnet
from dspnet_mm.versions import versions
from .further_files import FURTHER_FILES
from .plain_file import (INDEX_NAME, TOLERANCE, load_plain, read_index,
                         save_plain)
from .recalibrate import CALIBRATION_IMAGES, evaluating, recalibrate
from .slim import plain_backbone_cfg, slim
from .supernet import build_family_of, load_supernet

# How many images verification compares on.
_VERIFIED_IMAGES = 64


def export_subnets(cfg: Config,
                   checkpoint: str,
                   subnets: Dict[str, Subnet],
                   out_dir: str,
                   num_calibration: int = CALIBRATION_IMAGES,
                   seed: int = 0,
                   further_files: Sequence[str] = (),
                   device: str = 'cpu',
                   force: bool = False,
                   progress: Callable[[str], None] = print) -> List[dict]:
    """Slim a supernet to plain networks, verify them and write them.

    Files come under their final names only when all of them are written and
    verified. Per sub-network: ``NAME.pth`` (``state_dict`` of the backbone
    without prefix, and ``meta``), ``NAME.py`` (a config that holds
    ``backbone`` and ``out_channels``), further files on demand, and an entry
    in ``subnets.json``, where entries of other names stay.

    Args:
        cfg (Config): The training config.
        checkpoint (str): The training checkpoint.
        subnets (dict[str, Subnet]): What to export, by file name.
        out_dir (str): The folder to write into.
        num_calibration (int): How many training images batch norm is
            recalibrated on, at least 1. Defaults to 1024.
        seed (int): Decides which images. Defaults to 0.
        further_files (Sequence[str]): Which of ``FURTHER_FILES`` to write,
            too. Defaults to ().
        device (str): Where to compute. Defaults to 'cpu'.
        force (bool): Replace files that exist. Defaults to False.
        progress (Callable): Is told what is being done. Defaults to print.

    Returns:
        list[dict]: The sub-networks' entries in ``subnets.json``.

    Raises:
        InputError: If the input cannot be used; nothing is written then.
        VerificationError: If verification fails; nothing is written then.
    """
    if num_calibration < 1:
        raise InputError(f'{num_calibration} calibration images are too few: '
                         'batch norm needs at least 1')
    entries = read_index(out_dir, missing_ok=True)
    _check_overwriting(out_dir, subnets, entries, further_files, force)
    check_device(device)
    for kind in further_files:
        FURTHER_FILES[kind].check_installed()
    family = build_family_of(cfg)
    for kind in further_files:
        for name, subnet in subnets.items():
            FURTHER_FILES[kind].check_subnet(family, name, subnet)

    progress(f'loading {checkpoint}')
    # In channels-last, convolutions round otherwise than the plain network's.
    model = load_supernet(cfg, checkpoint).to(
        device, memory_format=torch.contiguous_format)
    for subnet in subnets.values():
        model.backbone.check_subnet(model.as_trained(subnet))
    image_format = ImageFormat.from_config(
        cfg.model.get('data_preprocessor'), family.input_size)
    dataset_cfg = cfg.train_dataloader.dataset
    dataset = evaluation_dataset(dataset_cfg, family.input_size)
    chosen = pick(dataset, num_calibration, seed)
    progress(f'reading {len(chosen)} of {len(dataset)} training images for '
             'BN recalibration')
    # What training survived must not prevent slimming.
    batches = [
        inputs.to(device) for inputs, _ in iterate(
            dataset, image_format, chosen, skip_unreadable=True)
    ]
    calibrated = sum(map(len, batches))
    if not calibrated:
        raise InputError(f'none of the {len(chosen)} training images for BN '
                         'recalibration can be read: mend them, or give more '
                         'with --calib-images')
    if calibrated < len(chosen):
        progress(f'{len(chosen) - calibrated} of them cannot be read and are '
                 'left out')
    shared_meta = dict(
        method=model.method,
        input_size=family.input_size,
        image_format=dict(
            mean=list(image_format.mean or []),
            std=list(image_format.std or []),
            bgr_to_rgb=image_format.bgr_to_rgb),
        calibration=dict(
            dataset=str(dataset_cfg['type']),
            data_root=str(dataset_cfg.get('data_root', '')),
            images=calibrated,
            seed=seed),
        source_sha256=sha256_of(checkpoint),
        versions=versions())

    staging = _make_staging(out_dir)
    try:
        written = []
        for number, (name, asked) in enumerate(subnets.items(), 1):
            subnet = model.as_trained(asked)
            progress(f'[{number}/{len(subnets)}] {name} ({subnet}): '
                     'recalibrating, slimming, verifying')
            meta = dict(
                name=name,
                widths=list(subnet.widths),
                depths=list(subnet.depths),
                groups=list(subnet.groups),
                params=family.params(subnet),
                flops=family.flops(subnet),
                out_channels=list(family.out_channels(subnet)),
                # Whoever trains it from random weights starts as the supernet.
                backbone=dict(
                    plain_backbone_cfg(family, subnet),
                    zero_init_residual=model.backbone.starts_as_identity),
                **shared_meta)
            written.append(
                _export_one(
                    model.exported_backbone(name), subnet, meta, batches,
                    staging, further_files, device))
        others = [entry for entry in entries if entry['name'] not in subnets]
        with open(os.path.join(staging, INDEX_NAME), 'w') as file:
            json.dump(dict(subnets=others + written), file, indent=2)
            file.write('\n')
        _publish(staging, out_dir, subnets)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def _check_overwriting(out_dir: str, subnets: Dict[str, Subnet],
                       entries: List[dict], further_files: Sequence[str],
                       force: bool) -> None:
    if os.path.exists(out_dir) and not os.path.isdir(out_dir):
        raise InputError(f'{out_dir} is a file: give a folder to write into')
    for name in subnets:
        for kind in FURTHER_FILES.values():
            if f'{name}.pth'.endswith(kind.suffix):
                raise InputError(f'{name}.pth would be taken for a '
                                 f'*{kind.suffix} of another sub-network: '
                                 f'rename {name} in the config')
    if force:
        return
    suffixes = _suffixes(further_files)
    taken = [
        name + suffix for name in subnets for suffix in suffixes
        if os.path.lexists(os.path.join(out_dir, name + suffix))
    ]
    taken += [entry['name'] for entry in entries if entry['name'] in subnets]
    if taken:
        raise InputError(f'{out_dir} already holds {taken[0]}: give another '
                         'folder, or --force to replace it')


def _suffixes(further_files: Iterable[str]) -> List[str]:
    return [
        '.pth', '.py', *(FURTHER_FILES[kind].suffix for kind in further_files)
    ]


def _make_staging(out_dir: str) -> str:
    # Beside the final place, since renaming works within a file system only.
    parent = os.path.abspath(out_dir)
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    try:
        return tempfile.mkdtemp(prefix='.slim_export-', dir=parent)
    except OSError as error:
        raise InputError(f'{parent} cannot be written to ({error.strerror}): '
                         'give another folder')


def _publish(staging: str, out_dir: str, names: Iterable[str]) -> None:
    os.makedirs(out_dir, exist_ok=True)
    new = os.listdir(staging)
    # The index last: what it lists is there.
    for name in sorted(new, key=lambda name: name == INDEX_NAME):
        os.replace(os.path.join(staging, name), os.path.join(out_dir, name))
    for name in names:
        for suffix in _suffixes(FURTHER_FILES):
            # Of an earlier export, which has just been replaced.
            stale = os.path.join(out_dir, name + suffix)
            if name + suffix not in new and os.path.exists(stale):
                os.remove(stale)


def _export_one(backbone: SlimmableResNet, subnet: Subnet,
                meta: Dict[str, Any], batches: List[torch.Tensor], folder: str,
                further_files: Sequence[str], device: str) -> dict:
    with activate(subnet, backbone):
        recalibrate(backbone, batches)
        expected = _stage_outputs(backbone, batches[0][:_VERIFIED_IMAGES])
    path = os.path.join(folder, f'{meta["name"]}.pth')
    save_plain(slim(backbone, subnet), meta, path)
    _write_config(meta, os.path.join(folder, f'{meta["name"]}.py'))

    # Everything is read back from the files, as a user would.
    network = load_plain(path, out_indices=(0, 1, 2, 3))
    images = batches[0][:_VERIFIED_IMAGES]
    with torch.no_grad():
        outputs = network.backbone.to(device)(images)
    difference = max(
        float((output - target).abs().max())
        for output, target in zip(outputs, expected))
    # Not "difference > ...", which is false for NaN.
    if not difference <= TOLERANCE:
        raise VerificationError(
            f'{meta["name"]} failed verification: it differs '
            f'by {difference:.3g} from the active sub-network, '
            f'more than {TOLERANCE:g}; nothing was written')
    entry = {key: meta[key] for key in meta if key != 'backbone'}
    entry['max_abs_difference'] = difference
    network.backbone.cpu()
    for kind in further_files:
        file = FURTHER_FILES[kind]
        entry.update(
            file.write(network, images.cpu(),
                       os.path.join(folder, meta['name'] + file.suffix)))
    entry['files'] = {
        meta['name'] + suffix:
        sha256_of(os.path.join(folder, meta['name'] + suffix))
        for suffix in _suffixes(further_files)
    }
    return entry


@torch.no_grad()
def _stage_outputs(backbone: SlimmableResNet, images: torch.Tensor):
    before = backbone.out_indices
    backbone.out_indices = (1, 2, 3, 4)
    try:
        with evaluating(backbone):
            return backbone(images)
    finally:
        backbone.out_indices = before


def _write_config(meta: Dict[str, Any], path: str) -> None:
    cfg = dict(backbone=meta['backbone'], out_channels=meta['out_channels'])
    if meta['backbone']['type'] == 'SlimResNet':
        cfg['custom_imports'] = dict(
            imports=['dspnet_mm'], allow_failed_imports=False)
    text = Config(cfg).pretty_text
    with open(path, 'w') as file:
        file.write(f'# Sub-network {meta["name"]}: widths {meta["widths"]}, '
                   f'depths {meta["depths"]}.\n'
                   '# "out_channels" are those of each stage, for a neck.\n'
                   f'{text.strip()}\n')
