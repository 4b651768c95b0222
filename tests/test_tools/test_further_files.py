# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Exports in the formats of other libraries."""
import json
import os
import re
import sys

import pytest
import torch
from conftest import make_family, run_tool
from torch import nn
from torchvision.models import resnet

from dspnet_mm.checkpoint import sha256_of
from dspnet_mm.errors import InputError
from dspnet_mm.models import SlimmableResNet
from dspnet_mm.slimming import further_files, load_plain, slim
from dspnet_mm.slimming.further_files import FURTHER_FILES
from dspnet_mm.slimming.plain_file import PlainNetwork

LIBRARIES = [
    'torchvision',
    pytest.param('timm', marks=pytest.mark.needs('timm'))
]


def export(trained, folder, *arguments):
    return run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', folder, '--calib-images', 8, *arguments)


def entry_of(folder):
    entry, = json.loads((folder / 'subnets.json').read_text())['subnets']
    return entry


def expected_of(folder, name, images):
    with torch.no_grad():
        return load_plain(str(folder / f'{name}.pth')).backbone(images)[-1]


@pytest.mark.needs('onnxruntime', 'safetensors', 'timm')
def test_all_formats_are_there_and_in_the_index(trained_64_channels, tmp_path):
    exported = tmp_path / 'new'
    assert export(trained_64_channels, exported, '--depth', 2, 1, 1, 2,
                  '--onnx', '--format', 'timm', 'torchvision', 'timm',
                  '--safetensors').returncode == 0
    entry = entry_of(exported)
    names = {
        f'w1_d2-1-1-2{suffix}'
        for suffix in ('.pth', '.py', '.onnx', '.torchvision.pth', '.timm.pth',
                       '.safetensors')
    }
    assert set(entry['files']) == names
    assert set(os.listdir(exported)) == names | {'subnets.json'}
    for name, digest in entry['files'].items():
        assert sha256_of(str(exported / name)) == digest
    assert entry['torchvision_max_abs_difference'] <= 1e-5
    assert entry['timm_max_abs_difference'] <= 1e-5
    assert entry['onnx_max_abs_difference'] >= 0


def test_torchvision_computes_the_same(trained_64_channels, tmp_path):
    assert export(trained_64_channels, tmp_path, '--depth', 2, 1, 1, 2,
                  '--format', 'torchvision').returncode == 0
    assert entry_of(tmp_path)['torchvision'] == dict(
        block='BasicBlock', layers=[2, 1, 1, 2])
    network = resnet.ResNet(resnet.BasicBlock, [2, 1, 1, 2])
    network.fc = network.avgpool = nn.Identity()
    network.load_state_dict(
        torch.load(
            str(tmp_path / 'w1_d2-1-1-2.torchvision.pth'), weights_only=True))
    # Larger than what was verified on, so that all strides matter.
    images = torch.rand(2, 3, 96, 64)
    output = network.eval()(images)
    expected = expected_of(tmp_path, 'w1_d2-1-1-2', images)
    assert expected.shape == (2, 512, 3, 2)
    assert torch.allclose(output, expected.flatten(1), atol=1e-5)


@pytest.mark.needs('timm')
@pytest.mark.parametrize('widths', [(1, 1, 1, 1), (1, 0.75, 0.25, 0.5)])
def test_timm_computes_the_same(trained_64_channels, tmp_path, widths):
    import timm
    assert export(trained_64_channels, tmp_path, '--width', *widths, '--depth',
                  1, 2, 1, 2, '--format', 'timm').returncode == 0
    entry = entry_of(tmp_path)
    channels = [
        int(c * width) for c, width in zip((64, 128, 256, 512), widths)
    ]
    assert entry['timm'] == dict(
        model_name='resnet18',
        num_classes=0,
        in_chans=3,
        layers=[1, 2, 1, 2],
        channels=channels)
    network = timm.create_model(**entry['timm']).eval()
    network.load_state_dict(
        torch.load(
            str(tmp_path / f'{entry["name"]}.timm.pth'), weights_only=True))
    images = torch.rand(2, 3, 96, 64)
    expected = expected_of(tmp_path, entry['name'], images)
    assert expected.shape == (2, channels[-1], 3, 2)
    assert torch.allclose(
        network.forward_features(images), expected, atol=1e-5)


@pytest.mark.parametrize('library', LIBRARIES)
def test_bottlenecks_are_theirs_as_well(library, tmp_path):
    family = make_family(
        depth=50,
        base_channels=64,
        stem='imagenet',
        desired=[dict(name='short', depths=[1, 2, 1, 1])])
    subnet = family['short']
    kind = FURTHER_FILES[library]
    kind.check_subnet(family, 'short', subnet)
    backbone = slim(SlimmableResNet(family), subnet)
    meta = dict(
        depths=list(subnet.depths),
        out_channels=list(family.out_channels(subnet)))
    said = kind.write(
        PlainNetwork(backbone, meta), torch.rand(2, 3, 64, 64),
        str(tmp_path / 'short.pth'))
    assert said[f'{library}_max_abs_difference'] <= 1e-5
    assert said[library]['layers'] == [1, 2, 1, 1]


@pytest.mark.needs('safetensors')
def test_safetensors_hold_the_same_and_say_what_it_is(trained, tmp_path):
    import safetensors
    import safetensors.torch

    # Any network has such a file.
    assert export(trained, tmp_path, '--subnet', 'tiny',
                  '--safetensors').returncode == 0
    path = str(tmp_path / 'tiny.safetensors')
    checkpoint = torch.load(str(tmp_path / 'tiny.pth'), weights_only=True)
    found = safetensors.torch.load_file(path)
    assert list(sorted(found)) == list(sorted(checkpoint['state_dict']))
    for name, tensor in checkpoint['state_dict'].items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safetensors.safe_open(path, framework='pt') as file:
        assert json.loads(file.metadata()['meta']) == checkpoint['meta']
    assert 'tiny.safetensors' in entry_of(tmp_path)['files']


REFUSALS = {
    'the small stem':
    ('trained', 'torchvision', ['--subnet', 'large'],
     r"large \(w1_.*torchvision: it has the stem 'small' \(allowed is "
     r"'imagenet'\) and stages of 8, .*leave torchvision out of --format"),
    'the small stem for timm': ('trained', 'timm', ['--subnet', 'large'],
                                "stem 'small'.*leave timm out of --format"),
    'narrow stages':
    ('trained_64_channels', 'torchvision',
     ['--width', '1', '0.5', '1', '1', '--depth',
      '1'], r'stages of 64, 64, 256, 512 channels \(allowed is 64, '
     r'128, 256, 512\)'),
    'a narrow first stage':
    ('trained_64_channels', 'timm', ['--all'],
     r'medium \(w0.75_.* a first stage of 48 channels \(allowed is 64\)'),
}


@pytest.mark.parametrize('case', [
    pytest.param(case, marks=pytest.mark.needs(REFUSALS[case][1]))
    for case in REFUSALS
])
def test_what_a_library_does_not_have_is_refused_at_once(
        case, request, tmp_path, monkeypatch):
    fixture, library, arguments, complaint = REFUSALS[case]
    monkeypatch.setattr('dspnet_mm.slimming.export.load_supernet',
                        lambda *args: pytest.fail('it has begun to work'))
    done = export(
        request.getfixturevalue(fixture), tmp_path / 'new', *arguments,
        '--format', library)
    assert done.returncode == 2
    message, = done.stderr.strip().split('\n')
    assert re.search(complaint, message), message
    assert os.listdir(tmp_path) == []


def test_images_of_another_kind_are_refused_by_torchvision_alone():
    family = make_family(base_channels=64, stem='imagenet', in_channels=1)
    with pytest.raises(InputError, match=r'of 1 channels \(allowed is 3\)'):
        FURTHER_FILES['torchvision'].check_subnet(family, 'large', family.full)
    FURTHER_FILES['timm'].check_subnet(family, 'large', family.full)


@pytest.mark.parametrize('package, arguments, remedy', [
    ('timm', ['--format', 'timm'], 'pip install "timm>=1.0.8"'),
    ('safetensors', ['--safetensors'], 'pip install safetensors'),
    ('onnxruntime', ['--onnx'], 'pip install onnx onnxruntime'),
])
def test_a_missing_package_is_named_with_its_remedy(trained_64_channels,
                                                    tmp_path, monkeypatch,
                                                    package, arguments,
                                                    remedy):
    monkeypatch.setitem(sys.modules, package, None)
    done = export(trained_64_channels, tmp_path / 'new', '--subnet', 'large',
                  *arguments)
    assert done.returncode == 2
    message, = done.stderr.strip().split('\n')
    assert f'{" ".join(arguments)} needs {package}' in message
    assert remedy in message
    assert os.listdir(tmp_path) == []


@pytest.mark.needs('timm')
def test_a_timm_without_widths_is_named_with_its_remedy(
        trained_64_channels, tmp_path, monkeypatch):
    import timm
    monkeypatch.setattr(timm, '__version__', '0.9.16')
    done = export(trained_64_channels, tmp_path / 'new', '--subnet', 'large',
                  '--format', 'timm')
    assert done.returncode == 2
    assert 'timm 0.9.16 is installed' in done.stderr
    assert 'pip install "timm>=1.0.8"' in done.stderr
    assert os.listdir(tmp_path) == []


def test_files_of_an_earlier_export_go(trained, tmp_path):
    old = [f'tiny{kind.suffix}' for kind in FURTHER_FILES.values()]
    others = [f'small{kind.suffix}' for kind in FURTHER_FILES.values()]
    for name in old + others:
        (tmp_path / name).write_text('of an earlier export')
    assert export(trained, tmp_path, '--subnet', 'tiny',
                  '--force').returncode == 0
    assert set(os.listdir(tmp_path)) == {
        'tiny.pth', 'tiny.py', 'subnets.json', *others
    }


def test_formats_are_not_overwritten_without_force(trained_64_channels,
                                                   tmp_path):
    (tmp_path / 'large.torchvision.pth').write_text('mine')
    done = export(trained_64_channels, tmp_path, '--subnet', 'large',
                  '--format', 'torchvision')
    assert done.returncode == 2
    assert 'already holds large.torchvision.pth' in done.stderr
    assert os.listdir(tmp_path) == ['large.torchvision.pth']
    assert (tmp_path / 'large.torchvision.pth').read_text() == 'mine'


def test_no_two_sub_networks_share_a_file(trained, tmp_path):
    done = export(trained, tmp_path / 'new', '--all', '--cfg-options',
                  'model.family.desired.0.name=tiny.timm')
    assert done.returncode == 2
    assert 'tiny.timm.pth would be taken for a *.timm.pth' in done.stderr
    assert os.listdir(tmp_path) == []


def other_value(state):
    state['layer4.0.conv1.weight'] = state['layer4.0.conv1.weight'] + 0.1


def other_names(state):
    state['stem.weight'] = state.pop('conv1.weight')


def not_a_number(state):
    state['layer4.0.bn1.bias'] = state['layer4.0.bn1.bias'] * float('nan')


WRONG = [
    (other_value, 'differs by'),
    (other_names, 'does not load it .*conv1.weight'),
    (not_a_number, 'differs by nan'),
]


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('change, complaint', WRONG)
def test_a_wrong_file_is_not_written(trained_64_channels, tmp_path,
                                     monkeypatch, library, change, complaint):
    genuine = further_files.save_tensors

    def wrong(state, path):
        change(state)
        genuine(state, path)

    monkeypatch.setattr(further_files, 'save_tensors', wrong)
    done = export(trained_64_channels, tmp_path / 'new', '--subnet', 'large',
                  '--format', library)
    assert done.returncode == 1
    message, = done.stderr.strip().split('\n')
    assert re.search(f'large.{library}.pth failed verification: .*{complaint}',
                     message)
    assert os.listdir(tmp_path) == []


def test_a_network_of_other_strides_is_not_written(trained_64_channels,
                                                   tmp_path, monkeypatch):
    genuine = resnet.ResNet

    def dilated(block, layers):
        built = genuine(block, layers)
        for stage in (built.layer3, built.layer4):
            stage[0].conv1.stride = stage[0].downsample[0].stride = (1, 1)
        return built

    monkeypatch.setattr(resnet, 'ResNet', dilated)
    done = export(trained_64_channels, tmp_path / 'new', '--subnet', 'large',
                  '--format', 'torchvision')
    assert done.returncode == 1
    assert 'is of the shape (8, 512, 2, 2) instead of' in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.needs('safetensors')
@pytest.mark.parametrize('change, complaint', [
    (lambda state, metadata: (state, dict(meta='{}')), 'another meta'),
    (lambda state, metadata:
     (dict(state, **{'bn1.bias': -state['bn1.bias']}), metadata),
     'other tensors'),
    (lambda state, metadata:
     (dict(state, more=torch.zeros(1)), metadata), 'other tensors'),
])
def test_wrong_safetensors_are_not_written(trained, tmp_path, monkeypatch,
                                           change, complaint):
    import safetensors.torch
    genuine = safetensors.torch.save
    monkeypatch.setattr(
        safetensors.torch, 'save',
        lambda state, metadata: genuine(*change(state, metadata)))
    done = export(trained, tmp_path / 'new', '--subnet', 'tiny',
                  '--safetensors')
    assert done.returncode == 1
    assert 'tiny.safetensors failed verification: it holds' in done.stderr
    assert complaint in done.stderr
    assert os.listdir(tmp_path) == []
