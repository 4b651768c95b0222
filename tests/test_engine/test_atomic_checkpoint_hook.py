# Copyright (c) The dspnet_mm authors. All rights reserved.
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, digits_cfg, train
from mmengine.runner import Runner

from dspnet_mm import InputError
from dspnet_mm.checkpoint import load_checkpoint


def whole_checkpoints(folder):
    """The names of the checkpoints, each of which loads."""
    names = sorted(path.name for path in folder.glob('[a-z]*.pth'))
    for name in names:
        load_checkpoint(str(folder / name))
    return names


def test_the_old_checkpoint_goes_when_the_new_one_is_whole(
        tmp_path, monkeypatch):
    replace, seen = os.replace, []

    def look_and_replace(source, target):
        seen.append((os.path.basename(target), whole_checkpoints(tmp_path)))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', look_and_replace)
    cfg = digits_cfg(tmp_path, epochs=3)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    for name in ('epoch_9.pth', 'last_checkpoint'):
        (tmp_path / f'.tmp-{name}').write_text('left by a run that was killed')
    # Something else's.
    (tmp_path / '.tmp-exports').mkdir()
    train(cfg)
    assert [(target, there) for target, there in seen
            if target != 'last_checkpoint'
            ] == [('epoch_1.pth', []), ('epoch_2.pth', ['epoch_1.pth']),
                  ('epoch_3.pth', ['epoch_2.pth'])]
    assert whole_checkpoints(tmp_path) == ['epoch_3.pth']
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_3.pth')
    assert [path.name for path in tmp_path.glob('.tmp-*')] == ['.tmp-exports']


def test_a_resumed_run_removes_what_a_killed_one_could_not(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    train(cfg)
    # As if killed between writing the second and removing the first.
    shutil.copy(tmp_path / 'epoch_2.pth', tmp_path / 'epoch_1.pth')
    cfg = digits_cfg(tmp_path, epochs=3, resume=True)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    train(cfg)
    assert whole_checkpoints(tmp_path) == ['epoch_3.pth']


@pytest.mark.parametrize('on_nonfinite', ['skip', 'stop'])
def test_the_last_good_checkpoint_survives_a_divergence(
        tmp_path, on_nonfinite):
    cfg = digits_cfg(tmp_path, epochs=12)
    cfg.model.on_nonfinite = on_nonfinite
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    # The first step of the third epoch ruins the weights.
    cfg.param_scheduler = [
        dict(type='MultiStepLR', milestones=[2], gamma=1e30)
    ]
    with pytest.raises(FloatingPointError, match='not finite at iteration'):
        train(cfg)
    assert whole_checkpoints(tmp_path) == ['epoch_2.pth']
    weights = load_checkpoint(str(tmp_path / 'epoch_2.pth'))['state_dict']
    assert all(value.abs().max() < 100 for value in weights.values())
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert ('No checkpoint epoch_3.pth' in log) == (on_nonfinite == 'skip')


@pytest.mark.parametrize('by_epoch, skipped, names', [
    (True, 3, ['epoch_1.pth']),
    (False, 2, ['iter_1.pth', 'iter_3.pth']),
    (False, 3, ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']),
])
def test_behind_a_skipped_step_the_end_alone_is_saved(tmp_path, by_epoch,
                                                      skipped, names):
    cfg = digits_cfg(tmp_path)
    cfg.default_hooks.checkpoint.update(by_epoch=by_epoch, interval=1)
    runner = Runner.from_cfg(cfg)

    def spoil(grad):
        return grad * float('inf') if runner.iter + 1 == skipped else grad

    runner.model.backbone.conv1.weight.register_hook(spoil)
    runner.train()
    assert runner.max_iters == 3
    assert runner.model.skipped_in_a_row == (skipped == 3)
    assert whole_checkpoints(tmp_path) == names


def test_a_step_that_a_scaler_skipped_leaves_no_doubt(tmp_path, monkeypatch):
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    runner = Runner.from_cfg(cfg)
    # As if a scaler were there, which this PyTorch has for GPUs alone.
    monkeypatch.setattr(
        type(runner.model),
        'only_scale_overflowed',
        property(lambda _: True, lambda *_: None),
        raising=False)
    runner.model.backbone.conv1.weight.register_hook(
        lambda grad: grad * float('inf' if runner.iter in (2, 3) else 1))
    runner.train()
    # Two in a row do.
    assert whole_checkpoints(tmp_path) == [
        f'iter_{step}.pth' for step in (1, 2, 3, 5, 6)
    ]


def test_a_run_with_one_cycle_is_resumed(tmp_path):
    cfg = digits_cfg(tmp_path, epochs=2)
    cfg.param_scheduler = [
        dict(type='OneCycleLR', eta_max=0.1, total_steps=6, by_epoch=False)
    ]
    train(cfg)
    cfg.resume = True
    cfg.load_from = str(tmp_path / 'epoch_1.pth')
    assert train(cfg).iter == 6


class Opaque:
    """What is on no list."""


def test_what_could_not_be_loaded_is_told_at_the_first_checkpoint(tmp_path):
    runner = Runner.from_cfg(digits_cfg(tmp_path, epochs=3))
    runner.message_hub.update_info('of a hook', Opaque())
    with pytest.raises(InputError, match='saves could not .*Opaque'):
        runner.train()
    assert runner.iter <= 3 and not whole_checkpoints(tmp_path)


FILL = '''
import sys
sys.path.insert(0, sys.argv[1])
from conftest import digits_cfg, train
cfg = digits_cfg(sys.argv[2], epochs=9)
cfg.default_hooks.checkpoint.out_dir = sys.argv[3]
train(cfg)
'''


def test_a_full_disk_is_named_and_costs_no_checkpoint(tmp_path):
    """On a file system of 8 MB, in a mount namespace of its own."""
    disk, kept = tmp_path / 'disk', tmp_path / 'kept'
    disk.mkdir()
    tests = os.path.join(ROOT, 'tests')
    script = tmp_path / 'fill.py'
    script.write_text(FILL)
    command = (f'mount -t tmpfs -o size=8m tmpfs {disk} || exit 77; '
               f'{sys.executable} {script} {tests} {tmp_path}/run {disk}; '
               f'code=$?; cp -r {disk}/run {kept}; exit $code')
    if not shutil.which('unshare'):
        pytest.skip('needs unshare to make a small file system')
    done = subprocess.run(['unshare', '-rm', 'sh', '-c', command],
                          capture_output=True,
                          text=True,
                          env=dict(os.environ, OMP_NUM_THREADS='1'))
    if done.returncode == 77 or 'unshare failed' in done.stderr:
        pytest.skip('needs the right to mount in a namespace of its own')
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert 'no space for a checkpoint, ' in message
    assert ' MB are free' in message and '--resume' in message
    names = whole_checkpoints(kept)
    assert names[:2] == ['epoch_1.pth', 'epoch_2.pth']
    assert not list(kept.glob('.tmp-*'))
    last = (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert os.path.basename(last) == names[-1]


def test_what_cannot_be_used_is_refused_before_training(tmp_path):
    damaged = tmp_path / 'epoch_1.pth'
    damaged.write_bytes(b'half')
    cfg = digits_cfg(tmp_path / 'run', resume=True, load_from=str(damaged))
    with pytest.raises(InputError, match='epoch_1.pth cannot be read'):
        train(cfg)
    cfg = digits_cfg(tmp_path / 'run')
    cfg.default_hooks.checkpoint.out_dir = 's3://bucket'
    with pytest.raises(InputError, match='not on a local disk'):
        train(cfg)
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('resume', [False, True])
def test_what_is_elsewhere_is_not_loaded(tmp_path, resume):
    cfg = digits_cfg(
        tmp_path, resume=resume, load_from='https://localhost/epoch_1.pth')
    with pytest.raises(InputError, match='epoch_1.pth.*download it first'):
        train(cfg)
    # What a run goes on from need not be named.
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/epoch_1.pth')
    with pytest.raises(InputError, match='s3:.*download it first'):
        train(digits_cfg(tmp_path, resume=True))
    assert not list(tmp_path.glob('*.pth'))
