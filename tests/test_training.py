# Copyright (c) The dspnet_mm authors. All rights reserved.
import copy
import csv
import glob
import os
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
import torch.multiprocessing
from conftest import (CIFAR_CONFIG, DIGITS_CONFIG, ROOT, SDR_CONFIG, RunsCode,
                      digits_cfg, model_cfg, run_tool, train)
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample
from PIL import Image

from dspnet_mm import InputError
from dspnet_mm.evaluation.report import METHODS
from dspnet_mm.models.layers import SlimmableBatchNorm

# Seconds instead of minutes.
SHORT = [
    '--cfg-options', 'train_cfg.max_epochs=1', 'custom_hooks.0.max_train=100',
    'custom_hooks.0.max_test=50', 'train_dataloader.dataset.indices=64',
    'train_dataloader.batch_size=16', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1'
]


def mim_train(config, folder, *args, pythonpath=None, options=()):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env.update(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    if pythonpath:
        env['PYTHONPATH'] = str(pythonpath)
    mim = os.path.join(os.path.dirname(sys.executable), 'mim')
    done = subprocess.run(
        [mim, 'train', 'mmselfsup', config, *args, *SHORT, *options],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'Training finished successfully' in output
    return output


@pytest.mark.smoke
def test_mim_train_runs_from_the_projects_root(tmp_path):
    output = mim_train(
        os.path.relpath(DIGITS_CONFIG, ROOT), ROOT, '--work-dir',
        str(tmp_path))
    assert (tmp_path / 'epoch_1.pth').exists()
    for logged in ('loss_large', 'spread_large', 'loss_tiny', 'kNN accuracy'):
        assert logged in output


def test_mim_train_runs_from_an_installed_wheel_in_an_empty_folder(tmp_path):
    site, empty = tmp_path / 'site', tmp_path / 'empty'
    empty.mkdir()
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    for command in ([
            'wheel', '--no-deps', '--no-build-isolation', '-w',
            str(tmp_path), ROOT
    ], ['install', '--no-deps', '--no-index', '--target',
            str(site)]):
        if command[0] == 'install':
            command.append(str(next(tmp_path.glob('*.whl'))))
        subprocess.run([*pip, *command], check=True, cwd=empty)
    config = (
        site / 'dspnet_mm' / '.mim' / 'configs' / 'dspnet' /
        os.path.basename(DIGITS_CONFIG))
    assert config.is_file() and not config.is_symlink()
    output = mim_train(str(config), empty, pythonpath=site)
    assert str(site) in subprocess.run(
        [sys.executable, '-c', 'import dspnet_mm; print(dspnet_mm.__file__)'],
        env=dict(os.environ, PYTHONPATH=str(site)),
        cwd=empty,
        capture_output=True,
        text=True).stdout
    stem = os.path.splitext(os.path.basename(DIGITS_CONFIG))[0]
    assert (empty / 'work_dirs' / stem / 'epoch_1.pth').exists()
    assert 'kNN accuracy' in output


def test_mim_train_runs_in_two_processes_on_a_cpu(tmp_path):
    output = mim_train(DIGITS_CONFIG, tmp_path, '--work-dir',
                       str(tmp_path / 'run'), '--launcher', 'pytorch',
                       '--gpus', '2')
    assert (tmp_path / 'run' / 'epoch_1.pth').exists()
    # 64 images, 2 processes, 16 images each: two iterations, logged once.
    assert re.findall(r'\[1\]\[(\d)/2\]', output) == ['1', '2']


def test_clusters_are_trained_in_two_processes(tmp_path):
    output = mim_train(
        SDR_CONFIG,
        tmp_path,
        '--work-dir',
        str(tmp_path / 'run'),
        '--launcher',
        'pytorch',
        '--gpus',
        '2',
        options=['train_cfg.max_epochs=4', 'train_dataloader.batch_size=8'])
    with open(tmp_path / 'run' / 'clusters.csv') as file:
        clusters = [row['cluster'] for row in csv.DictReader(file)]
    assert Counter(clusters) == {str(number): 16 for number in range(4)}
    # In the last phase, one batch of 2 times 8 images of each.
    last, = re.findall(r'Epoch\(train\) +\[4\]\[4/4\].*', output)
    assert {*re.findall(r'loss_cluster-(\d)', last)} == {*clusters}


def whole_state(runner):
    """All that a training's future depends on, as a flat list."""
    schedules = [schedule.state_dict() for schedule in runner.param_schedulers]
    momenta = runner.optim_wrapper.state_dict()['state'].values()
    return [
        *runner.model.state_dict().values(),
        *[state['momentum_buffer'] for state in momenta],
        torch.tensor([runner.iter, runner.epoch,
                      len(schedules)]),
        torch.tensor([schedule['last_step'] for schedule in schedules]),
        torch.tensor(runner.optim_wrapper.get_lr()['lr']),
    ]


# Epochs of 3 iterations, or of 2 steps of 2 iterations, what is left over
# being left out.
RESUMES = dict(
    epoch=(dict(), 'epoch_2.pth'),
    iteration=(dict(by_epoch=False, interval=4), 'iter_4.pth'),
    last_of_an_epoch=(dict(by_epoch=False, interval=6), 'iter_6.pth'),
    accumulated=(dict(by_epoch=False, interval=6), 'iter_6.pth'))


@pytest.mark.parametrize('case', [
    pytest.param('iteration', marks=pytest.mark.smoke),
    'epoch',
    'last_of_an_epoch',
    'accumulated',
])
def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(tmp_path, case):
    """With random views, sub-networks and order, and workers that die."""
    checkpoint, name = RESUMES[case]
    accumulated = case == 'accumulated'
    states = []
    for run in ('whole', 'resumed'):
        cfg = digits_cfg(
            tmp_path / run, epochs=4, images=170 if accumulated else 96)
        cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
        cfg.model.sampler = dict(
            type='SandwichSampler', num_random=2, desired_prob=0.3)
        cfg.default_hooks.checkpoint.update(checkpoint)
        if accumulated:
            cfg.optim_wrapper.accumulative_counts = 2
            cfg.model.step_each_subnet = False
        if run == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / name)
        runner = train(cfg)
        assert runner.iter == (16 if accumulated else 12)
        states.append(whole_state(runner))
    whole, resumed = states
    assert len(whole) == len(resumed)
    assert all(torch.equal(*pair) for pair in zip(whole, resumed))
    assert not (tmp_path / 'resumed' / name).exists()
    # It compares something: another seed gives another network.
    cfg = digits_cfg(tmp_path / 'other', epochs=4)
    cfg.randomness.seed = 1
    assert not torch.equal(whole[0], whole_state(train(cfg))[0])


def test_resuming_is_exact_where_the_device_makes_the_views(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f'{number}.png')
    states = []
    for run in ('whole', 'resumed'):
        cfg = Config.fromfile(CIFAR_CONFIG)
        cfg.merge_from_dict({
            'model.family.base_channels': 8,
            'train_cfg.max_epochs': 2,
            'train_dataloader.batch_size': 4,
            'train_dataloader.dataset.data_root': str(images),
            'default_hooks.checkpoint.by_epoch': False,
            'custom_hooks': [],
            'work_dir': str(tmp_path / run),
            'log_level': 'WARNING',
        })
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}-{run}'
        if run == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / 'iter_2.pth')
        states.append(whole_state(train(cfg)))
    assert all(torch.equal(*pair) for pair in zip(*states))


@pytest.mark.parametrize('sampler_seed', [None, 5])
def test_the_seeds_of_a_run_are_resumed(tmp_path, sampler_seed):
    """Those that are drawn, and one of the sampler's own."""
    states = []
    for run in ('whole', 'resumed'):
        cfg = digits_cfg(tmp_path / run, epochs=2)
        cfg.randomness = dict(seed=None)
        if sampler_seed is not None:
            cfg.train_dataloader.sampler.seed = sampler_seed
        if run == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / 'epoch_1.pth')
        runner = train(cfg)
        assert sampler_seed in (None, runner.train_dataloader.sampler.seed)
        states.append(whole_state(runner))
    assert all(torch.equal(*pair) for pair in zip(*states))


@pytest.mark.parametrize('changes, complaint', [
    ({
        'train_dataloader.sampler.type': 'DefaultSampler'
    }, 'sampler.type=ResumableSampler'),
    ({
        'train_dataloader.dataset': {
            '_delete_': True,
            'type': 'ConcatDataset',
            'datasets': [dict(type='EmbeddedDigits')] * 2
        }
    }, 'ConcatDataset does not draw the same.*ImageFolder'),
    ({
        'train_dataloader.batch_size': 97
    }, '96 images are fewer than .* takes, 97'),
    ({
        'optim_wrapper.accumulative_counts': 4
    }, '96 images are fewer than .* takes, 128'),
    ({
        'optim_wrapper.accumulative_counts': 3,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 4
    }, 'interval=4 .* multiple of 3'),
])
def test_what_could_not_be_resumed_is_refused(tmp_path, changes, complaint):
    cfg = digits_cfg(tmp_path)
    cfg.merge_from_dict(changes)
    with pytest.raises(InputError, match=complaint):
        train(cfg)


@pytest.mark.parametrize('multiplier', [1., 0.])
def test_decay_that_would_not_reach_batch_norms_is_refused(
        tmp_path, multiplier):
    cfg = digits_cfg(tmp_path)
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=multiplier)
    # Part of an epoch will do.
    cfg.train_dataloader.num_batch_per_epoch = 1
    if multiplier == 1:
        assert train(cfg).iter == 1
        return
    with pytest.raises(InputError, match='norm_decay_mult does not reach'):
        train(cfg)


@pytest.mark.parametrize('changes', [
    {
        'train_dataloader.batch_size': 16
    },
    {
        'train_dataloader.dataset.indices': 97
    },
])
def test_a_run_is_not_resumed_on_other_epochs(trained, tmp_path, changes):
    cfg = digits_cfg(
        tmp_path, epochs=2, resume=True, load_from=trained.checkpoint)
    cfg.merge_from_dict(changes)
    with pytest.raises(InputError, match='96 images in 3 iterations'):
        train(cfg)


def test_a_run_is_resumed_from_nothing_that_runs_code(tmp_path):
    torch.save(
        dict(state_dict=RunsCode(os.mkdir, str(tmp_path / 'made'))),
        tmp_path / 'epoch_1.pth')
    cfg = digits_cfg(tmp_path / 'run')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_1.pth')
    with pytest.raises(InputError, match='not on the list'):
        train(cfg)
    assert not (tmp_path / 'made').exists()


def _spawn(worker, processes, *args):
    """Call a worker with its rank, in so many processes of its own."""
    torch.multiprocessing.spawn(_work, (worker, processes, *args), processes)


def _work(rank, worker, *args):
    worker(rank, *args)
    # Threads of gloo may abort a process that ends otherwise (torch 2.0).
    os._exit(0)


def _join(rank, world_size, folder):
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{folder}/rendezvous',
            rank=rank,
            world_size=world_size)
    init_default_scope('mmselfsup')
    torch.manual_seed(0)


def _steps(rank, world_size, folder, cfg):
    """Five steps on this process' part of each batch."""
    _join(rank, world_size, folder)
    model = MODELS.build(cfg)
    # In float64, as five steps make much of float32's rounding.
    model.double()
    model.data_preprocessor.forward = lambda data, _: (data['inputs'], None)
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        views = torch.rand(
            2, 16, 3, 16, 16, generator=generator, dtype=torch.float64)
        part = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
        model.train_step(
            dict(
                inputs=list(views[:, part]),
                data_samples=[SelfSupDataSample()] * (16 // world_size)),
            wrapper)
    torch.save(model.state_dict(), f'{folder}/{world_size}_{rank}.pth')


@pytest.mark.parametrize('method, switchable_bn', [
    ('dspnet', False),
    ('dspnet', True),
    ('slimclr-mocov2', True),
    ('slimclr-mocov3', True),
    ('slimclr-simclr', True),
    ('us3l', False),
    ('average_gradients', False),
])
def test_two_processes_are_one_with_the_doubled_batch(tmp_path, method,
                                                      switchable_bn):
    """Synchronised batch norm included."""
    cfg = model_cfg(switchable_bn=switchable_bn)
    if method == 'average_gradients':
        cfg.update(
            average_gradients=True, sampler=dict(type='AllDesiredSampler'))
    elif method != 'dspnet':
        folder = method.split('-')[0]
        shipped = Config.fromfile(
            DIGITS_CONFIG.replace(
                f'dspnet{os.sep}dspnet',
                f'{folder}{os.sep}{method}')).model.to_dict()
        cfg = dict(
            shipped,
            family=cfg['family'],
            sampler=dict(type='AllDesiredSampler'))
    for world_size in (1, 2):
        _spawn(_steps, world_size, str(tmp_path), cfg)
    one, first, second = (
        torch.load(tmp_path / name)
        for name in ('1_0.pth', '2_0.pth', '2_1.pth'))
    for key in one:
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(one[key], first[key], atol=1e-8), key


def _normalise(rank, world_size, folder):
    """Of a mean that is large, in parts that are not equal."""
    _join(rank, world_size, folder)
    layer = SlimmableBatchNorm(4)
    values = 30 + 0.05 * torch.randn(16, 4, 3)
    factors = torch.randn(16, 4, 3)
    part = slice(0, 16) if world_size == 1 else (slice(0, 6),
                                                 slice(6, 16))[rank]
    inputs = values[part].requires_grad_()
    outputs = layer(inputs)
    (outputs * factors[part]).sum().backward()
    torch.save((outputs.detach(), inputs.grad), f'{folder}/bn_{rank}.pth')


def test_batch_norm_over_two_processes_is_that_of_one(tmp_path):
    _spawn(_normalise, 1, str(tmp_path))
    expected = torch.load(tmp_path / 'bn_0.pth')
    _spawn(_normalise, 2, str(tmp_path))
    parts = [torch.load(tmp_path / f'bn_{rank}.pth') for rank in range(2)]
    for whole, *halves in zip(expected, *parts):
        assert torch.allclose(torch.cat(halves), whole, rtol=1e-3, atol=1e-3)


def _views_of_a_step(rank, world_size, folder):
    """The views that a process makes of the same images as the other."""
    _join(rank, world_size, folder)
    cfg = Config.fromfile(CIFAR_CONFIG).model
    cfg.family.base_channels = 8
    model = MODELS.build(cfg)
    seen = []
    model.data_preprocessor.register_forward_hook(
        lambda module, inputs, outputs: seen.append(outputs[0][0]))
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    samples = [SelfSupDataSample() for _ in images]
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    model.train_step(dict(inputs=[images], data_samples=samples), wrapper)
    complaint = ''
    try:
        # As it would be called by another wrapper.
        model(seen, samples, mode='loss')
    except RuntimeError as error:
        complaint = str(error)
    torch.save((images, seen[0], complaint), f'{folder}/views_{rank}.pth')


def test_processes_make_views_of_their_own_by_their_own_wrapper(tmp_path):
    _spawn(_views_of_a_step, 2, str(tmp_path))
    (images, views, complaint), (others, other_views, _) = (
        torch.load(tmp_path / f'views_{rank}.pth') for rank in range(2))
    assert torch.equal(images, others)
    assert not torch.allclose(views, other_views, atol=0.1)
    assert "model_wrapper_cfg=dict(type='SupernetDistributed')" in complaint


def _counted_steps(rank, world_size, folder):
    """Three steps with plain batch norm, the second of them poisoned."""
    _join(rank, world_size, folder)
    model = MODELS.build(
        model_cfg(sync_bn=False, sampler=dict(type='AllDesiredSampler')))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    generator = torch.Generator().manual_seed(rank)
    reduced, states = [], []
    all_reduce = torch.distributed.all_reduce

    def count(tensor, *args, **kwargs):
        reduced.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    # The first one's is sent once, before the first step.
    torch.manual_seed(7 + rank)
    assert model.seed == 7
    torch.distributed.all_reduce = count
    for step in range(3):
        views = [
            torch.rand(8, 3, 16, 16, generator=generator) for _ in range(2)
        ]
        if rank == 1 and step == 1:
            views[0][0] = float('nan')
        model.train_step(
            dict(inputs=views, data_samples=[SelfSupDataSample()] * 8),
            wrapper)
        states.append(copy.deepcopy(model.state_dict()))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    torch.save((reduced, trained, states), f'{folder}/{rank}.pth')


def test_gradients_are_reduced_once_a_step_with_the_losses(tmp_path):
    """And what one process cannot use, none does."""
    _spawn(_counted_steps, 2, str(tmp_path))
    (reduced, trained, states), (_, _, others) = (
        torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    # All parameters, and the losses of three sub-networks.
    assert reduced == [trained + 3] * 3
    for one, other in zip(states, others):
        assert all(torch.equal(one[key], other[key]) for key in one)
    first, second, third = (state['backbone.conv1.weight'] for state in states)
    assert torch.equal(first, second) and not torch.equal(second, third)


DYING = '''
import os
import signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class DyingHook(Hook):

    def __init__(self, how):
        self.how = how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1 and runner.iter == 2:
            print('dying at', os.times().elapsed, flush=True)
            if self.how == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('something is wrong with rank 1')
'''
DYING_CONFIG = '''
_base_ = {base!r}
custom_imports = dict(imports=['dspnet_mm', 'dying'])
custom_hooks = [dict(type='DyingHook', how={how!r})]
train_dataloader = dict(
    num_workers=1, batch_size=16, dataset=dict(indices=160))
'''


def processes_with(text):
    """Numbers of the processes whose command or environment names it."""
    found = []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            if int(name) != os.getpid() and text.encode() in b''.join(
                    open(f'/proc/{name}/{what}', 'rb').read()
                    for what in ('cmdline', 'environ')):
                found.append(int(name))
        except OSError:
            pass  # It has ended.
    return found


@pytest.mark.parametrize('how, complaint', [
    ('raised', 'RuntimeError: something is wrong with rank 1'),
    ('killed', 'Signal 9'),
])
def test_a_rank_that_dies_ends_the_run(tmp_path, how, complaint):
    (tmp_path / 'dying.py').write_text(DYING)
    config = tmp_path / 'config.py'
    config.write_text(DYING_CONFIG.format(base=DIGITS_CONFIG, how=how))
    mim = os.path.join(os.path.dirname(sys.executable), 'mim')
    done = subprocess.run([
        mim, 'train', 'mmselfsup',
        str(config), '--work-dir',
        str(tmp_path / 'run'), '--launcher', 'pytorch', '--gpus', '2'
    ],
                          cwd=tmp_path,
                          env=dict(
                              os.environ,
                              OMP_NUM_THREADS='1',
                              CUDA_VISIBLE_DEVICES='-1',
                              PYTHONPATH=f'{tmp_path}:{ROOT}'),
                          capture_output=True,
                          text=True)
    ended = os.times().elapsed
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert complaint in output, output[-3000:]
    assert ended - float(re.search(r'dying at ([\d.]+)', output)[1]) < 60
    # Loading processes look for their parent every five seconds.
    for _ in range(20):
        if not processes_with(str(tmp_path)):
            break
        time.sleep(1)
    assert not processes_with(str(tmp_path))


METHODS_CONFIGS = sorted(
    path for method in ('slimclr', 'us3l')
    for path in glob.glob(os.path.join(ROOT, 'configs', method, '*digits.py')))


@pytest.mark.parametrize('config', METHODS_CONFIGS)
def test_each_methods_run_is_resumed_slimmed_and_evaluated(config, tmp_path):
    states = []
    for run in ('whole', 'resumed'):
        cfg = digits_cfg(tmp_path / run, epochs=2, config=config)
        if run == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / 'epoch_1.pth')
        states.append(train(cfg).model.state_dict())
    whole, resumed = states
    assert whole.keys() == resumed.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key

    cfg.dump(str(tmp_path / 'config.py'))
    done = run_tool('slim_export.py', tmp_path / 'config.py',
                    tmp_path / 'resumed' / 'epoch_2.pth', '--out-dir',
                    tmp_path / 'exports', '--all', '--calib-images', 100)
    assert done.returncode == 0, done.stderr
    done = run_tool('evaluate.py', tmp_path / 'exports', '--data', 'digits')
    assert done.returncode == 0, done.stderr
    method, _ = os.path.basename(config).split('_', 1)
    for network in cfg.model.family.desired:
        assert re.search(
            rf'\| {re.escape(METHODS[method])} +\| {network.name} ',
            done.stdout)
