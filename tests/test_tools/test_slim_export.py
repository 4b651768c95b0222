# Copyright (c) The dspnet_mm authors. All rights reserved.
import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, TOOLBOXES, digits_cfg, run_tool, toolbox_models
from mmengine.config import Config
from mmselfsup.registry import MODELS

from dspnet_mm.checkpoint import sha256_of
from dspnet_mm.slimming import export as export_module
from dspnet_mm.slimming import load_plain
from dspnet_mm.slimming.plain_file import read_index

TOOL = os.path.join(ROOT, 'tools', 'slim_export.py')
NAMES = ['large', 'medium', 'small', 'tiny']


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """All DNs, exported by the command itself."""
    folder = tmp_path_factory.mktemp('exports') / 'new'
    done = subprocess.run([
        sys.executable, TOOL, trained.config, trained.checkpoint, '--out-dir',
        str(folder), '--all', '--calib-images', '50', '--onnx'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert '| tiny ' in done.stdout
    return folder


@pytest.mark.smoke
def test_all_files_are_there_and_none_besides(exported):
    names = {f'{n}{s}' for n in NAMES for s in ('.pth', '.py', '.onnx')}
    assert set(os.listdir(exported)) == names | {'subnets.json'}
    assert os.listdir(exported.parent) == ['new']


@pytest.mark.smoke
def test_the_memory_format_of_training_does_not_round(trained, tmp_path):
    """Where tensor cores want channels last, files are as precise."""
    done = run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', tmp_path, '--all', '--cfg-options',
                    'model.channels_last=True')
    assert done.returncode == 0, done.stderr
    assert {
        entry['max_abs_difference']
        for entry in read_index(str(tmp_path))
    } == {0}


def test_the_index_says_what_was_written(exported, trained):
    entries = json.loads((exported / 'subnets.json').read_text())['subnets']
    assert [entry['name'] for entry in entries] == NAMES
    for entry in entries:
        assert entry['max_abs_difference'] <= 1e-5
        assert entry['calibration'] == dict(
            dataset='EmbeddedDigits', data_root='', images=50, seed=0)
        assert entry['input_size'] == 12
        assert entry['source_sha256'] == sha256_of(trained.checkpoint)
        assert entry['versions']['torch'] == torch.__version__.split('+')[0]
        assert len(entry['widths']) == len(entry['depths']) == 4
        assert entry['params'] > 0 and entry['flops'] > 0
        for name, digest in entry['files'].items():
            assert sha256_of(str(exported / name)) == digest
    sizes = [os.path.getsize(exported / f'{name}.pth') for name in NAMES]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 4


@pytest.mark.smoke
@pytest.mark.parametrize('toolbox', TOOLBOXES)
def test_files_load_strictly_into_the_toolboxes(exported, toolbox):
    models = toolbox_models(toolbox)
    for name in NAMES:
        cfg = Config.fromfile(str(exported / f'{name}.py'))
        checkpoint = torch.load(
            str(exported / f'{name}.pth'), weights_only=True)
        backbone = models.build(dict(cfg.backbone, out_indices=(0, 1, 2, 3)))
        backbone.load_state_dict(checkpoint['state_dict'], strict=True)
        outputs = backbone(torch.rand(2, 3, 32, 32))
        assert [o.shape[1] for o in outputs] == cfg.out_channels
        assert checkpoint['meta']['name'] == name
        assert checkpoint['meta']['params'] == sum(
            p.numel() for p in backbone.parameters())


@pytest.mark.smoke
@pytest.mark.needs('onnxruntime')
def test_onnx_files_compute_the_same_at_any_batch_size(exported):
    import onnxruntime
    models = toolbox_models('mmcls')
    images = torch.rand(5, 3, 12, 12)
    for name in NAMES:
        cfg = Config.fromfile(str(exported / f'{name}.py'))
        backbone = models.build(cfg.backbone)
        backbone.load_state_dict(
            torch.load(str(exported / f'{name}.pth'),
                       weights_only=True)['state_dict'])
        backbone.eval()
        session = onnxruntime.InferenceSession(
            str(exported / f'{name}.onnx'), providers=['CPUExecutionProvider'])
        output = session.run(None, dict(images=images.numpy()))[0]
        expected = backbone(images)[-1].detach().numpy()
        assert np.abs(output -
                      expected).max() <= 1e-4 * max(1,
                                                    np.abs(expected).max())


def test_a_stock_resnet_is_exported_as_well(trained_imagenet_stem, tmp_path):
    done = run_tool('slim_export.py', trained_imagenet_stem.config,
                    trained_imagenet_stem.checkpoint, '--out-dir', tmp_path,
                    '--subnet', 'large', '--calib-images', 50)
    assert done.returncode == 0
    network = load_plain(str(tmp_path / 'large.pth'))
    assert network.meta['backbone']['type'] == 'ResNet'
    output, = network.backbone(torch.rand(2, 3, 32, 32))
    assert output.shape[1] == network.meta['out_channels'][-1]


def test_the_same_seed_writes_the_same_files(trained, tmp_path, exported):
    states = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        assert run_tool('slim_export.py', trained.config, trained.checkpoint,
                        '--out-dir', tmp_path / name, '--subnet', 'tiny',
                        '--calib-images', 50, '--seed', seed).returncode == 0
        states.append(
            torch.load(str(tmp_path / name / 'tiny.pth'))['state_dict'])
    states.append(torch.load(str(exported / 'tiny.pth'))['state_dict'])
    same = [[
        all(torch.equal(one[k], other[k]) for k in one) for other in states
    ] for one in states]
    assert same[0] == [True, True, False, True]


@pytest.mark.parametrize('arguments, written', [
    (['--width', '0.5', '--depth', '2', '1', '1', '1'], 'w0.5_d2-1-1-1'),
    (['--width', '0.25', '--depth', '1'], 'tiny'),
    (['--depth', '1', '1', '2', '1'], 'w1_d1-1-2-1'),
    (['--width', '0.75'], 'w0.75_d2-2-2-2'),
    (['--max-params', '100K'], None),
    (['--max-flops', '0.3M'], None),
])
def test_any_member_and_budgets(trained, tmp_path, arguments, written):
    done = run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', tmp_path, '--calib-images', 8, *arguments)
    assert done.returncode == 0
    # With a budget, what is larger than the DN is offered, too.
    assert ('taking the desired network' in done.stdout) == (written is None)
    entry, = json.loads((tmp_path / 'subnets.json').read_text())['subnets']
    if written:
        assert entry['name'] == written
    else:
        limit = dict(params=100_000, flops=300_000)
        key = arguments[0].split('-')[-1]
        assert entry[key] <= limit[key]
        assert entry['name'] in NAMES


def test_a_second_export_joins_the_first(trained, tmp_path):
    common = (trained.config, trained.checkpoint, '--out-dir', tmp_path,
              '--calib-images', 8, '--subnet')
    assert run_tool('slim_export.py', *common, 'tiny').returncode == 0
    assert run_tool('slim_export.py', *common, 'small').returncode == 0
    entries = json.loads((tmp_path / 'subnets.json').read_text())['subnets']
    assert [entry['name'] for entry in entries] == ['tiny', 'small']


def test_nothing_is_overwritten_without_force(trained, tmp_path):
    common = (trained.config, trained.checkpoint, '--out-dir', tmp_path,
              '--calib-images', 8, '--subnet', 'tiny')
    (tmp_path / 'tiny.py').write_text('mine')
    done = run_tool('slim_export.py', *common)
    assert done.returncode == 2
    assert 'already holds tiny.py' in done.stderr
    assert os.listdir(tmp_path) == ['tiny.py']
    assert (tmp_path / 'tiny.py').read_text() == 'mine'
    (tmp_path / 'tiny.onnx').write_text('of an earlier export')
    assert run_tool('slim_export.py', *common, '--force').returncode == 0
    assert 'SlimResNet' in (tmp_path / 'tiny.py').read_text()
    assert not (tmp_path / 'tiny.onnx').exists()


def spoil(trained, tmp_path, how):
    """A checkpoint that differs from the trained one."""
    checkpoint = torch.load(trained.checkpoint)
    how(checkpoint['state_dict'])
    path = tmp_path / 'spoiled.pth'
    torch.save(checkpoint, path)
    return str(path)


BAD_INPUTS = {
    'a missing config': (dict(config='missing.py'), 'does not exist'),
    'a config that is none': (dict(config='text'), 'cannot be read as'),
    'a config without a supernet': (dict(config='other.py'),
                                    'describes no supernet'),
    'a config of another family':
    (dict(options=['model.family.base_channels=16']),
     r'does not fit the config: .*tensors of another shape \(backbone.conv1'),
    'an option without a value': (dict(options=['model']),
                                  'model is not allowed: give KEY=VALUE'),
    'an option that the config has not':
    (dict(options=['model.family.desired.9.name=x']),
     '--cfg-options cannot be set'),
    'a family that is none': (dict(options=['model.family=3']),
                              'describes no supernet'),
    'an unknown key of the family':
    (dict(options=['model.family.base_chanels=8']), 'base_chanels'),
    'a part that cannot be built': (dict(options=['model.head=3']),
                                    'cannot be built'),
    'missing keys': (dict(spoil=lambda state: state.pop('neck.fc0.weight')),
                     r'1 keys missing \(neck.fc0.weight\)'),
    'unexpected keys':
    (dict(spoil=lambda state: state.update(extra=torch.zeros(1))),
     r'1 unexpected keys \(extra\)'),
    'a missing checkpoint': (dict(checkpoint='missing.pth'), 'does not exist'),
    'a checkpoint that is none': (dict(checkpoint='text'),
                                  'cannot be read as a checkpoint'),
    'an unknown sub-network': (dict(which=['--subnet', 'huge']),
                               'large.*medium.*small.*tiny'),
    'a width that is not allowed': (dict(which=['--width', '1.5']),
                                    r'in \(0, 1\]'),
    'a width outside of the family': (dict(which=['--width', '0.1']),
                                      'widths .*0.25 to 1'),
    'a depth that is not allowed':
    (dict(which=['--width', '1', '--depth', '9']), 'depths .*1 to 2'),
    'too few depths': (dict(which=['--width', '1', '--depth', '1', '1']),
                       'or 4, one for each'),
    'a budget that nothing fits': (dict(which=['--max-params', '10']),
                                   'the smallest, w0.25_d1-1-1-1, has'),
    'a budget that is none': (dict(which=['--max-flops', 'many']),
                              'e.g. 4000000, 300M'),
    'no choice': (dict(which=[]), 'exactly one of --subnet'),
    'two choices': (dict(which=['--all', '--subnet', 'tiny']),
                    'exactly one of --subnet'),
    'no calibration images': (dict(which=['--all', '--calib-images', '0']),
                              'at least 1'),
    'an unknown device': (dict(which=['--all', '--device', 'cuda:99']),
                          "'cuda:99'"),
    'a file in the folder\'s place': (dict(out_dir='text'), 'is a file'),
    'an index that is none': (dict(out_dir='broken'),
                              'subnets.json cannot be read'),
    'data that is not there': (dict(options=[
        'train_dataloader.dataset.type=ImageFolder',
        'train_dataloader.dataset.data_root=nowhere',
        'train_dataloader.dataset.split=None'
    ]), 'nowhere'),
}


@pytest.mark.parametrize('case', BAD_INPUTS)
def test_bad_input_is_one_line_status_two_and_nothing_written(
        case, trained, tmp_path, monkeypatch):
    changes, complaint = BAD_INPUTS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text').write_text('neither config nor checkpoint (')
    (tmp_path / 'other.py').write_text("model = dict(type='BYOL')")
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'subnets.json').write_text('{"subnets": 3}')
    checkpoint = changes.get('checkpoint', trained.checkpoint)
    if 'spoil' in changes:
        checkpoint = spoil(trained, tmp_path, changes['spoil'])
    before = sorted(os.walk(tmp_path))
    arguments = [
        changes.get('config', trained.config), checkpoint, '--out-dir',
        changes.get('out_dir', 'new'), *changes.get('which', ['--all'])
    ]
    if 'options' in changes:
        arguments += ['--cfg-options', *changes['options']]
    done = run_tool('slim_export.py', *arguments)
    assert done.returncode == 2
    message = done.stderr.strip().split('\n')[-1]
    assert 'error: ' in message
    assert re.search(complaint, message), message
    assert sorted(os.walk(tmp_path)) == before


def test_others_have_no_switchable_batch_norm(tmp_path):
    """Said before images are read."""
    cfg = digits_cfg(tmp_path)
    cfg.model.switchable_bn = True
    cfg.model.sampler = dict(type='AllDesiredSampler')
    cfg.dump(str(tmp_path / 'config.py'))
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'epoch.pth')
    done = run_tool('slim_export.py', tmp_path / 'config.py',
                    tmp_path / 'epoch.pth', '--out-dir', tmp_path / 'out',
                    '--width', '0.5')
    assert done.returncode == 2
    assert 'with switchable_bn' in done.stderr and 'large' in done.stderr
    assert 'reading' not in done.stdout
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('text, number', [
    ('4.153344M', 4153344),
    ('4.1M', 4100000),
    ('1.001k', 1001),
    ('1.5G', 1500000000),
    ('300', 300),
    ('9' * 400, int('9' * 400)),
])
def test_a_budget_is_not_rounded(text, number):
    path = os.path.join(ROOT, 'tools', 'slim_export.py')
    assert runpy.run_path(path)['budget'](text) == number


def test_a_failed_verification_writes_nothing(trained, tmp_path, monkeypatch):
    genuine = export_module.slim

    def wrong(backbone, subnet):
        plain = genuine(backbone, subnet)
        with torch.no_grad():
            plain.layer4[0].conv1.weight[0, 0] += 0.1
        return plain

    monkeypatch.setattr(export_module, 'slim', wrong)
    done = run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', tmp_path / 'new', '--all', '--calib-images',
                    8)
    assert done.returncode == 1
    assert 'failed verification' in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing(trained, tmp_path,
                                                monkeypatch):
    calls = []

    def fail(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, 'No space left on device', 'small.py')
        return genuine(*args)

    genuine = export_module._write_config
    monkeypatch.setattr(export_module, '_write_config', fail)
    assert run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', tmp_path / 'new', '--all', '--calib-images',
                    8).returncode == 2
    assert os.listdir(tmp_path) == []


def test_a_family_of_another_kind_of_names_cannot_leave_the_folder(
        trained, tmp_path, exported):
    copy = tmp_path / 'copy'
    shutil.copytree(exported, copy)
    index = json.loads((copy / 'subnets.json').read_text())
    index['subnets'][0]['name'] = '../../etc/passwd'
    (copy / 'subnets.json').write_text(json.dumps(index))
    done = run_tool('evaluate.py', copy, '--data', 'digits')
    assert done.returncode == 2
    assert 'is a path' in done.stderr
