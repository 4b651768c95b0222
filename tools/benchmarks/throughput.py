#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Measure how many images a second a machine trains on, and against BYOL.

For the ResNet-50 family on made-up images at 224 pixels, and for the family
for small images on those of a folder, loading included; in single precision,
and in bfloat16 with PyTorch's channels-last memory format.
"""
import argparse
import itertools
import os
import subprocess
import sys
import time
from typing import Callable, Iterator, NamedTuple, Optional

import torch
from engine import LARGE, SEED, SMALL, byol, config_path, read_model
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample
from torch import nn

from dspnet_mm.cli import command_line, markdown_table, run
from dspnet_mm.device import check_device, make_current
from dspnet_mm.errors import InputError
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.versions import versions


class Case(NamedTuple):
    """What is trained, and how."""
    config: str
    method: str
    precision: str


# What needs a folder comes first: a wrong one costs nothing.
CASES = [
    Case(*case)
    for case in itertools.product((SMALL, LARGE), ('byol', 'supernet alone',
                                                   'dspnet'), ('float32',
                                                               'bfloat16'))
]


def batches(cfg: Config, args: argparse.Namespace) -> Iterator[dict]:
    """The loader's batches without an end, or one made up over and over."""
    if cfg.train_dataloader.dataset.data_root is None:
        size = cfg.model.family.input_size
        pixels = torch.randint(
            256, (args.batch_size, 3, size, size), dtype=torch.uint8)
        pixels = pixels.to(args.device)
        samples = [SelfSupDataSample()] * args.batch_size
        while True:
            yield dict(inputs=[pixels], data_samples=samples)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=SEED)
    if not len(loader):
        raise InputError(f'{args.images} holds {len(loader.dataset)} images, '
                         f'fewer than a batch of {args.batch_size}: give more '
                         'images, or a smaller --batch-size')
    while True:
        yield from loader


def build(case: Case, cfg: Config, device: str) -> nn.Module:
    """The algorithm, in training mode."""
    init_default_scope('mmselfsup')
    torch.manual_seed(SEED)
    model_cfg = cfg.model
    model_cfg.channels_last = case.precision != 'float32'
    if case.method != 'dspnet':
        model_cfg.sampler = dict(type='FixedSampler')
    model = MODELS.build(model_cfg)
    if case.method == 'byol':
        model = byol(model_cfg, model)
        if case.precision != 'float32':
            model.to(memory_format=torch.channels_last)
        # MMSelfSup makes views under mixed precision, and we do not.
        model.data_preprocessor.forward = torch.autocast(
            device.split(':')[0], enabled=False)(
                model.data_preprocessor.forward)
    return model.to(device).train()


def utilisation(step: Callable, device: str) -> Optional[float]:
    """How much of the time a GPU is busy with steps, in percent."""
    if device == 'cpu':
        return None
    index = torch.device(device).index or 0
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    # nvidia-smi counts all of them, and tells the last second or less.
    name = visible.split(',')[index] if visible else str(index)
    end = time.perf_counter() + 2
    while time.perf_counter() < end:
        step()
    query = subprocess.Popen([
        'nvidia-smi', f'--id={name}', '--query-gpu=utilization.gpu',
        '--format=csv,noheader,nounits'
    ],
                             stdout=subprocess.PIPE,
                             text=True)
    while query.poll() is None:
        step()
    return float(query.stdout.read())


def measure(case: Case, args: argparse.Namespace) -> dict:
    """Train some steps."""
    cfg = Config.fromfile(config_path(case.config))
    cfg.model = read_model(case.config)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = args.images if case.config == SMALL else None
    cfg.train_dataloader.batch_size = args.batch_size
    model = build(case, cfg, args.device)
    wrapper_type = OptimWrapper
    options = {}
    if case.precision != 'float32':
        wrapper_type, options = AmpOptimWrapper, dict(dtype=case.precision)
    wrapper = wrapper_type(
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9),
        **options)
    data = batches(cfg, args)
    on_gpu = args.device != 'cpu'

    def step() -> None:
        model.train_step(next(data), wrapper)

    for _ in range(args.warmup):
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return dict(
        case._asdict(),
        images_per_s=args.steps * args.batch_size / seconds,
        peak_memory_mb=torch.cuda.max_memory_allocated() /
        1e6 if on_gpu else None,
        gpu_utilisation=utilisation(step, args.device))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--images',
        required=True,
        metavar='FOLDER',
        help='images of 32x32 pixels, e.g. data/cifar10/train')
    parser.add_argument('--device', default='cuda', help='(default: cuda)')
    parser.add_argument(
        '--batch-size', type=int, default=256, help='(default: 256)')
    parser.add_argument(
        '--steps', type=int, default=50, help='to measure (default: 50)')
    parser.add_argument(
        '--warmup', type=int, default=10, help='steps before (default: 10)')
    parser.add_argument(
        '--only',
        choices=('small', 'large'),
        help='one of the families (default: both)')
    parser.add_argument('--out', required=True, help='JSON to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if min(args.batch_size, args.steps) < 1 or args.warmup < 0:
        raise InputError('--batch-size and --steps have to be at least 1, '
                         '--warmup at least 0')
    check_device(args.device)
    make_current(args.device)
    check_writable(args.out)
    # BYOL's momentum asks for it.
    MessageHub.get_instance('throughput').update_info('max_iters', 10**6)
    chosen = dict(small=SMALL, large=LARGE).get(args.only)
    rows = []
    for case in CASES:
        if chosen in (None, case.config):
            print(' '.join(case), file=sys.stderr, flush=True)
            rows.append(measure(case, args))
    for row in rows:
        theirs = next(other for other in rows
                      if other['method'] == 'byol' and all(
                          other[key] == row[key]
                          for key in ('config', 'precision')))
        row['time_to_byol'] = theirs['images_per_s'] / row['images_per_s']
    report = dict(
        rows=rows,
        device='cpu'
        if args.device == 'cpu' else torch.cuda.get_device_name(args.device),
        batch_size=args.batch_size,
        steps=args.steps,
        seeds=[SEED],
        versions=versions(),
        command=command_line(__file__))
    write_json(args.out, report)
    keys = [key for key in rows[0] if rows[0][key] is not None]
    print(
        markdown_table(keys, [[
            value if isinstance(value, str) else f'{value:.4g}'
            for value in map(row.get, keys)
        ] for row in rows]))


if __name__ == '__main__':
    run(main)
