# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing
from conftest import DIGITS_CONFIG, ROOT, digits_cfg, model_cfg, train
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS
from mmselfsup.structures import SelfSupDataSample

# Seconds instead of minutes.
SHORT = [
    '--cfg-options', 'train_cfg.max_epochs=1', 'custom_hooks.0.max_train=100',
    'custom_hooks.0.max_test=50', 'train_dataloader.dataset.indices=64',
    'train_dataloader.batch_size=16', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1'
]


def mim_train(config, folder, *args, pythonpath=None):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    env.update(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    if pythonpath:
        env['PYTHONPATH'] = str(pythonpath)
    mim = os.path.join(os.path.dirname(sys.executable), 'mim')
    done = subprocess.run([mim, 'train', 'mmselfsup', config, *args, *SHORT],
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


def still(dataset_cfg):
    """Views without randomness."""
    dataset_cfg.pipeline = [
        dict(
            type='MultiView',
            num_views=2,
            transforms=[[dict(type='mmcls.Resize', scale=12)]]),
        dict(type='PackSelfSupInputs')
    ]


@pytest.mark.smoke
def test_two_epochs_and_resume_and_two_are_four_bit_by_bit(tmp_path):
    states = []
    for name in ('whole', 'resumed'):
        cfg = digits_cfg(tmp_path / name, epochs=4)
        still(cfg.train_dataloader.dataset)
        cfg.model.sampler = dict(
            type='SandwichSampler', num_random=2, desired_prob=0.3)
        if name == 'resumed':
            cfg.resume = True
            cfg.load_from = str(tmp_path / 'whole' / 'epoch_2.pth')
        runner = train(cfg)
        momenta = runner.optim_wrapper.state_dict()['state'].values()
        states.append([
            *runner.model.state_dict().values(),
            *[state['momentum_buffer'] for state in momenta]
        ])
    whole, resumed = states
    assert len(whole) == len(resumed)
    assert all(torch.equal(*pair) for pair in zip(whole, resumed))
    assert not (tmp_path / 'resumed' / 'epoch_2.pth').exists()


def _steps(rank, world_size, folder, switchable_bn):
    """Three steps on this process' part of each batch."""
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{folder}/rendezvous',
            rank=rank,
            world_size=world_size)
    init_default_scope('mmselfsup')
    torch.manual_seed(0)
    model = MODELS.build(
        model_cfg(
            switchable_bn=switchable_bn,
            sampler=dict(
                type='SandwichSampler', num_random=1, desired_prob=1.0)))
    # In float64, as three steps make much of float32's rounding.
    model.double()
    model.data_preprocessor.forward = lambda data, _: (data['inputs'], None)
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        views = torch.rand(
            2, 16, 3, 16, 16, generator=generator, dtype=torch.float64)
        part = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
        model.train_step(
            dict(
                inputs=list(views[:, part]),
                data_samples=[SelfSupDataSample()] * (16 // world_size)),
            wrapper)
    torch.save(model.state_dict(), f'{folder}/{world_size}_{rank}.pth')


@pytest.mark.parametrize('switchable_bn', [False, True])
def test_two_processes_are_one_with_the_doubled_batch(tmp_path, switchable_bn):
    """Synchronised batch norm included."""
    for world_size in (1, 2):
        torch.multiprocessing.spawn(_steps,
                                    (world_size, str(tmp_path), switchable_bn),
                                    world_size)
    one, first, second = (
        torch.load(tmp_path / name)
        for name in ('1_0.pth', '2_0.pth', '2_1.pth'))
    for key in one:
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(one[key], first[key], atol=1e-8), key
