#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Measure what a training step costs, each figure beside its bound.

Both sides of a comparison run in turn, in one process, on one thread, with
weights and images alike; what counts is the median of the ratios of
neighbours. On a CPU the process's own seconds are taken, so that other work
on the machine matters little.
"""
import argparse
import json
import multiprocessing
import operator
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Callable, Dict, List, NamedTuple
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmselfsup.models.algorithms import BYOL
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample
from one_by_one import alone_cfg
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from views import makers, photographs

from dspnet_mm.cli import add_options, command_line, markdown_table, run
from dspnet_mm.device import check_device, make_current
from dspnet_mm.engine import GradientHook
from dspnet_mm.errors import InputError
from dspnet_mm.files import check_writable, write_json
from dspnet_mm.models import DSPNet, activate
from dspnet_mm.models.gradient_probe import GradientProbe
from dspnet_mm.slimming import slim
from dspnet_mm.versions import versions

ROOT = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, 'tools', 'benchmarks', 'results', 'engine.json')
# The configs whose families are measured.
SMALL = 'dspnet_resnet18-small_1xb256-coslr-100e_cifar10'
LARGE = 'dspnet_resnet50_8xb128-accum4-coslr-200e_in1k'
ROUTED = os.path.join(ROOT, 'configs', 'sdr',
                      'sdr_resnet18_8xb128-coslr-200e_in1k.py')
SEED = 0
THREADS = 1
# Of each side of a comparison.
MIN_SECONDS = 30
RELATIONS = {
    '<': operator.lt,
    '<=': operator.le,
    '=': operator.eq,
    '>=': operator.ge
}


class Options(NamedTuple):
    """How to measure; also what each process that is started gets."""
    repeats: int
    device: str
    quick: bool


class Figure(NamedTuple):
    """What is measured, what its value has to be, and what it says."""
    measure: Callable[[Options], dict]
    relation: str
    bound: float
    text: str


def config_path(config: str) -> str:
    return os.path.join(ROOT, 'configs', 'dspnet', f'{config}.py')


def read_model(config: str) -> dict:
    """A config's model as it trains in the end, when all phases are over."""
    cfg = Config.fromfile(config_path(config)).model
    if 'phases' in cfg.sampler:
        cfg.sampler = cfg.sampler.phases[-1]
        del cfg.sampler['until']
    cfg.update(target='largest', predictor_warmup=0.)
    return cfg


def read_config(config: str, options: Options) -> dict:
    """A config's model with the supernet alone, without augmentations."""
    init_default_scope('mmselfsup')
    cfg = read_model(config)
    # What it is compared with has neither: views are made elsewhere, and
    # PyTorch's memory format is the default one.
    cfg.channels_last = False
    for key in ('type', 'views'):
        cfg.data_preprocessor.pop(key, None)
    cfg.sampler = dict(type='FixedSampler')
    if options.quick:
        cfg.family.update(base_channels=8, input_size=32)
        cfg.neck.hid_channels = cfg.head.predictor.hid_channels = 32
    return cfg


def build(cfg: dict, options: Options) -> nn.Module:
    """A model in training mode, its weights drawn from the seed."""
    torch.manual_seed(SEED)
    return MODELS.build(cfg).to(options.device).train()


def sandwich(number: int) -> dict:
    """The sampler that draws so many sub-networks."""
    return dict(type='SandwichSampler', num_random=number - 2, desired_prob=0.)


def images(cfg: dict, batch: int, options: Options) -> torch.Tensor:
    """Random images, as a data loader gives them."""
    batch = 4 if options.quick else batch
    size = cfg.family.input_size
    return 255 * torch.rand(batch, 3, size, size, device=options.device)


def stepper(model: nn.Module, cfg: dict, batch: int,
            options: Options) -> Callable:
    """What trains a model for a step, always on the same batch."""
    views = [images(cfg, batch, options) for _ in range(2)]
    samples = [SelfSupDataSample() for _ in views[0]]
    data = dict(inputs=views, data_samples=samples)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    wrapper = OptimWrapper(optimizer)
    return lambda: model.train_step(data, wrapper)


def seconds(action: Callable, options: Options) -> float:
    """What an action takes: of a CPU's time, or by the clock on a GPU.

    Processes that it starts are counted, if it waits for their end.
    """
    if options.device == 'cpu':
        start = cpu_seconds()
        action()
        return cpu_seconds() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def cpu_seconds() -> float:
    """The CPU's time of this process and of those that it has waited for."""
    usages = map(resource.getrusage,
                 (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def paired(ours: Callable, theirs: Callable, options: Options) -> dict:
    """The median ratio of two actions, and what it is made of."""
    for action in (ours, theirs):
        action()
    samples: Dict[str, List[float]] = dict(ours_s=[], theirs_s=[])
    enough = 0 if options.quick else MIN_SECONDS
    # Short actions vary most and can be repeated more often.
    while len(samples['ours_s']) < options.repeats or \
            sum(samples['ours_s']) < enough:
        # In this order, neither gains by going first, nor by a drift.
        times = [
            seconds(action, options) for action in (ours, theirs, theirs, ours)
        ]
        samples['ours_s'].append(times[0] + times[3])
        samples['theirs_s'].append(times[1] + times[2])
    return ratio(samples)


def ratio(samples: Dict[str, list]) -> dict:
    """The median ratio of ours to theirs."""
    ratios = [ours / theirs for ours, theirs in zip(*samples.values())]
    return dict(value=median(ratios), ratios=ratios, **samples)


def largest(parts: Dict[str, dict]) -> dict:
    """Several parts, of which the largest stands for all."""
    return dict(
        value=max(part['value'] for part in parts.values()), parts=parts)


def fresh_processes(number: int) -> ProcessPoolExecutor:
    """Processes that share nothing with this one but its environment."""
    return ProcessPoolExecutor(number, multiprocessing.get_context('spawn'))


def resident_bytes(key: str) -> int:
    """This process's memory as Linux counts it: VmRSS now, VmHWM at most."""
    with open('/proc/self/status') as file:
        return 1024 * int(re.search(rf'{key}:\s*(\d+) kB', file.read())[1])


def peak_bytes(sampler: dict, batch: int, options: Options) -> int:
    """How far training steps raise the memory above the model and batch."""
    # In a process of its own.
    make_current(options.device)
    torch.set_num_threads(THREADS)
    cfg = read_config(SMALL, options)
    cfg.sampler = sampler
    step = stepper(build(cfg, options), cfg, batch, options)
    if options.device == 'cpu':
        before = resident_bytes('VmRSS')
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')  # VmHWM starts anew.
    else:
        before = torch.cuda.memory_allocated()
    for _ in range(3):
        step()
    if options.device == 'cpu':
        return resident_bytes('VmHWM') - before
    return torch.cuda.max_memory_allocated() - before


def peak_memory_ratio(options: Options, number: int, batch: int = 128) -> dict:
    """Steps with some sub-networks against steps with the supernet alone."""
    samplers = dict(
        ours_bytes=sandwich(number), theirs_bytes=dict(type='FixedSampler'))
    samples: Dict[str, List[int]] = {key: [] for key in samplers}
    # What is freed goes back at once, so that no holes in the heap count.
    with mock.patch.dict(
            os.environ,
            MALLOC_MMAP_THRESHOLD_='65536',
            MALLOC_TRIM_THRESHOLD_='65536'):
        # Memory hardly varies, and a process takes long to start.
        for _ in range(min(options.repeats, 3)):
            for key, sampler in samplers.items():
                with fresh_processes(1) as pool:
                    measured = pool.submit(peak_bytes, sampler, batch, options)
                    samples[key].append(measured.result())
    return dict(batch=batch, **ratio(samples))


def subnet_overhead(options: Options) -> dict:
    """Passes of each DN in the supernet against those of its plain network.

    As in a step, behind the supernet's own pass: the gradients of all
    weights exist, and each pass adds to them.
    """
    parts = {}
    for config, batch in ((LARGE, 16), (SMALL, 256)):
        cfg = read_config(config, options)
        supernet = build(cfg, options).backbone
        inputs = images(cfg, batch, options) / 255

        def train(network: nn.Module, inputs: torch.Tensor = inputs) -> None:
            network(inputs)[-1].mean().backward()

        train(supernet)
        for name, subnet in supernet.family.desired.items():
            plain = slim(supernet, subnet).to(options.device)
            plain.train()
            with activate(subnet, supernet):
                measured = paired(
                    partial(train, supernet), partial(train, plain), options)
            parts[f'{config}: {name}'] = dict(batch=batch, **measured)
            progress(f'{name}: {measured["value"]:.3f}')
    return largest(parts)


def activation(options: Options) -> dict:
    """Milliseconds to activate a sub-network and to go back, of the process.

    On the supernet's backbone, projector and predictor; each time another DN.
    """
    model = build(read_config(LARGE, options), options)
    samples = []
    for subnet in [*model.family.desired.values()] * 20 * options.repeats:
        start = time.process_time()
        with activate(subnet, *model.slimmable_networks):
            pass
        samples.append(1000 * (time.process_time() - start))
    return dict(value=median(samples), samples_ms=samples)


def byol(cfg: dict, model: DSPNet) -> BYOL:
    """MMSelfSup's own BYOL, its networks and weights a supernet's."""
    twin = MODELS.build(alone_cfg(cfg, model.family, model.family.full))
    # All but the target network's, which it copies in its first step.
    twin.load_state_dict(model.state_dict(), strict=False)
    return twin


def step_ratio_to_byol(options: Options) -> dict:
    """A step of the supernet alone against one of MMSelfSup's BYOL."""
    # BYOL's momentum asks for it.
    hub = MessageHub.get_instance('engine')
    hub.update_info('max_iters', 10**6)
    parts = {}
    # PyTorch computes small batches on one thread without oneDNN: measure
    # both ways.
    for config, batch in ((LARGE, 4), (LARGE, 16), (SMALL, 64), (SMALL, 256)):
        cfg = read_config(config, options)
        model = build(cfg, options)
        twin = byol(cfg, model).to(options.device).train()
        ours, theirs = (
            stepper(each, cfg, batch, options) for each in (model, twin))
        name = f'{config}, batch {batch}'
        parts[name] = dict(batch=batch, **paired(ours, theirs, options))
        progress(f'{name}: {parts[name]["value"]:.3f}')
    return largest(parts)


def gradient_hook_ratio(options: Options) -> dict:
    """Steps with GradientHook at its own interval against those without.

    From steps that it all looks at: what is more in them comes once in an
    interval.
    """
    interval = GradientHook().interval
    parts = {}
    for config, batch in ((LARGE, 16), (SMALL, 64)):
        cfg = read_config(config, options)
        cfg.sampler = sandwich(3)
        model = build(cfg, options)
        step = stepper(model, cfg, batch, options)

        def watched(model: DSPNet = model, step: Callable = step) -> None:
            model.gradient_probe = GradientProbe(
                list(model.backbone.parameters()),
                model.family.label_of(model.family.full))
            step()
            model.gradient_probe.summary()
            model.gradient_probe = None

        name = f'{config}, batch {batch}'
        measured = paired(watched, step, options)
        value = 1 + (measured['value'] - 1) / interval
        parts[name] = dict(measured, batch=batch, value=value)
        progress(f'{name}: {value:.4f}')
    return dict(largest(parts), interval=interval)


def reduced_bytes(rank: int, folder: str, options: Options) -> List[List[int]]:
    """The sizes of all reductions in each of three steps of a process."""
    torch.set_num_threads(THREADS)
    torch.distributed.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        timeout=timedelta(minutes=2),
        rank=rank,
        world_size=2)
    cfg = read_config(SMALL, options)
    # With a step for each sub-network, each step would have its own.
    cfg.update(sync_bn=False, step_each_subnet=False, sampler=sandwich(3))
    step = stepper(build(cfg, options), cfg, 8, options)
    steps: List[List[int]] = []
    all_reduce = torch.distributed.all_reduce

    def counted(tensor: torch.Tensor, *args, **kwargs):
        steps[-1].append(tensor.numel() * tensor.element_size())
        return all_reduce(tensor, *args, **kwargs)

    torch.distributed.all_reduce = counted
    for _ in range(3):
        steps.append([])
        step()
    # destroy_process_group() could wait for its own thread for ever: that
    # one may still wait for this thread to let go of Python (torch 2.0).
    return steps


def reductions_per_step(options: Options) -> dict:
    """Reductions over two processes in a step with three sub-networks."""
    options = options._replace(device='cpu')
    with tempfile.TemporaryDirectory() as folder, fresh_processes(2) as pool:
        ranks = [
            pool.submit(reduced_bytes, rank, folder, options)
            for rank in range(2)
        ]
        sizes = [rank.result() for rank in ranks]
    return dict(
        value=max(len(step) for rank in sizes for step in rank),
        bytes_by_process_and_step=sizes)


def pipeline_ratio(options: Options, config: str) -> dict:
    """Images a CPU second, from files to views, against MMSelfSup's BYOL."""
    options = options._replace(device='cpu')
    small = config == SMALL
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        number = photographs(folder, small)
        compared = makers(config_path(config), folder, small)
        for name, (ours, theirs) in compared.items():
            measured = paired(ours, theirs, options)
            # Images a second go the other way.
            parts[name] = dict(measured, value=1 / measured['value'])
            progress(f'{name}: {parts[name]["value"]:.3f}')
    return dict(
        value=min(part['value'] for part in parts.values()),
        images=number,
        parts=parts)


def kills_survived(options: Options) -> dict:
    """Trainings that were killed and lost nothing, in a process of its own.

    Since it forks, which a process that has computed should not.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as temporary:
        out = os.path.join(temporary, 'kills.json')
        command = [sys.executable, os.path.join(folder, 'kills.py')]
        kills = 2 if options.quick else 30
        subprocess.run([*command, '--kills',
                        str(kills), '--out', out],
                       check=True,
                       stdout=subprocess.DEVNULL)
        with open(out) as file:
            measured = json.load(file)
    return dict(measured, value=measured['kills_survived'])


def routing_minutes(options: Options) -> dict:
    """Route a task among 256 ResNet-18, in a process of its own.

    On two threads. Weights are random, which takes as long as trained ones.
    """
    number = 100 if options.quick else 5000
    with tempfile.TemporaryDirectory() as folder:
        task = os.path.join(folder, 'task')
        two_classes(task, number)
        cfg = Config.fromfile(ROUTED)
        # For a config of the ImageNet stem, small images as well.
        changes = {'model.family.input_size': 32}
        if options.quick:
            changes.update({
                'model.family.base_channels': 20,
                'model.family.shared_channels': 4
            })
        cfg.merge_from_dict(changes)
        init_default_scope('mmselfsup')
        torch.manual_seed(SEED)
        checkpoint = os.path.join(folder, 'random.pth')
        torch.save(
            dict(state_dict=MODELS.build(cfg.model).state_dict()), checkpoint)
        begin = time.perf_counter()
        subprocess.run([
            sys.executable,
            os.path.join(ROOT, 'tools', 'route.py'), ROUTED, checkpoint,
            '--task', task, '--device', options.device, '--out',
            os.path.join(folder, 'routed'), '--cfg-options',
            *(f'{key}={value}' for key, value in changes.items())
        ],
                       check=True,
                       env=dict(os.environ, OMP_NUM_THREADS='2'),
                       stdout=subprocess.DEVNULL)
        minutes = (time.perf_counter() - begin) / 60
        with open(os.path.join(folder, 'routed', 'ranking.json')) as file:
            subnets = len(json.load(file)['rows'])
    return dict(value=minutes, subnets=subnets, images=number, threads=2)


def two_classes(folder: str, number: int) -> None:
    """Write a task: parts of two photographs, 32x32 pixels, as PNG files.

    Args:
        folder (str): Where train/CLASS and test/CLASS come.
        number (int): How many images to train on; the test images, which
            routing does not look at, are one of each class.
    """
    generator = np.random.default_rng(SEED)
    for label, pixels in enumerate(load_sample_images().images):
        for split, images in (('train', number // 2), ('test', 1)):
            place = os.path.join(folder, split, str(label))
            os.makedirs(place)
            for index in range(images):
                top, left = generator.integers(
                    (pixels.shape[0] - 31, pixels.shape[1] - 31))
                part = pixels[top:top + 32, left:left + 32]
                Image.fromarray(part).save(os.path.join(place, f'{index}.png'))


FIGURES = {
    'peak_memory_ratio_n3':
    Figure(
        partial(peak_memory_ratio, number=3), '<=', 1.1,
        'peak memory of a step with 3 sub-networks / with the supernet alone'),
    'peak_memory_ratio_n8':
    Figure(
        partial(peak_memory_ratio, number=8), '<=', 1.1,
        'peak memory of a step with 8 sub-networks / with the supernet alone'),
    'subnet_overhead_max':
    Figure(
        subnet_overhead, '<=', 1.05,
        'time of an active sub-network / of the plain network, largest of 8'),
    'activation_ms':
    Figure(activation, '<', 1,
           'milliseconds to activate a sub-network of ResNet-50'),
    'step_ratio_to_byol':
    Figure(step_ratio_to_byol, '<=', 1,
           "time of a step of the supernet alone / of MMSelfSup's BYOL"),
    'gradient_hook_ratio':
    Figure(
        gradient_hook_ratio, '<=', 1.02,
        'time of steps with GradientHook, every 50th looked at / without it'),
    'pipeline_ratio_32':
    Figure(
        partial(pipeline_ratio, config=SMALL), '>=', 2,
        "images a CPU second at 32 pixels / of MMSelfSup's BYOL pipeline"),
    'pipeline_ratio_224':
    Figure(
        partial(pipeline_ratio, config=LARGE), '>=', 1,
        "images a CPU second at 224 pixels / of MMSelfSup's BYOL pipeline"),
    'reductions_per_step':
    Figure(reductions_per_step, '=', 1, 'reductions of gradients in a step'),
    'kills_survived':
    Figure(kills_survived, '>=', 30,
           'kills after which a resumed run lost nothing'),
    'routing_minutes':
    Figure(routing_minutes, '<', 10,
           'minutes to route 5,000 images of 32 pixels among 256 ResNet-18'),
}


def kept(path: str, setting: dict) -> Dict[str, dict]:
    """What was measured before, in the same setting."""
    if not os.path.exists(path):
        return {}
    try:
        with open(path) as file:
            old = json.load(file)
        measurements, old_versions = old['measurements'], old['versions']
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} holds no figures ({error}): give another '
                         'file with --out')
    # The versions first, as the message then names the one that differs.
    for was, now in ((old_versions, setting['versions']), (old, setting)):
        for key, value in now.items():
            if was.get(key) != value:
                raise InputError(
                    f'{path} was measured with {key} {was.get(key)}, now it '
                    f'is {value}: measure all figures, without --only, or '
                    'give another file with --out')
    return measurements


def row(name: str, value: float) -> dict:
    """A figure beside its bound, as a table shows it."""
    figure = FIGURES[name]
    return dict(
        figure=figure.text,
        value=value,
        bound=f'{figure.relation} {figure.bound:g}',
        met=RELATIONS[figure.relation](value, figure.bound))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--only',
        nargs='+',
        choices=FIGURES,
        metavar='NAME',
        help='measure these anew and keep the others of the file, which has '
        'to be of the same versions: ' + ', '.join(FIGURES))
    parser.add_argument(
        '--repeats',
        type=int,
        default=7,
        help='pairs, at least, to take the median of (default: %(default)s)')
    add_options(parser, 'device')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='tiny networks and few images: shows that it works, and says '
        'nothing of the figures')
    parser.add_argument(
        '--out',
        default=OUT,
        metavar='FIGURES.json',
        help='where to write (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.repeats < 1:
        raise InputError(f'--repeats {args.repeats} is not allowed: give at '
                         'least 1')
    check_device(args.device)
    make_current(args.device)
    check_writable(args.out)
    if args.quick and os.path.realpath(args.out) == os.path.realpath(OUT):
        raise InputError('--quick figures are none: give another file than '
                         'the results with --out')
    setting = dict(
        versions=versions(),
        device=args.device,
        threads=THREADS,
        seeds=[SEED],
        quick=args.quick)
    # Whatever is started computes on one thread, too.
    os.environ['OMP_NUM_THREADS'] = str(THREADS)
    torch.set_num_threads(THREADS)
    command = command_line(__file__)
    measurements = kept(args.out, setting) if args.only else {}
    options = Options(args.repeats, args.device, args.quick)
    for name in args.only or FIGURES:
        progress(f'{name} ...')
        measured = FIGURES[name].measure(options)
        measurements[name] = dict(
            measured, repeats=args.repeats, command=command)
    figures = {
        name: measurements[name]['value']
        for name in FIGURES if name in measurements
    }
    rows = [row(name, value) for name, value in figures.items()]
    report = dict(
        figures=figures,
        rows=rows,
        measurements=measurements,
        **setting,
        command=command)
    write_json(args.out, report)
    print(
        markdown_table(
            ('figure', 'value', 'bound', 'met?', 'what it is'),
            [(name, f'{value:.4g}', each['bound'],
              'yes' if each['met'] else 'no', each['figure'])
             for (name, value), each in zip(figures.items(), rows)]))
    print(f'figures: {args.out}')


if __name__ == '__main__':
    run(main)
