# Copyright (c) The dspnet_mm authors. All rights reserved.
import pytest
import torch
from conftest import make_family

from dspnet_mm import InputError
from dspnet_mm.models import SlimmableResNet
from dspnet_mm.slimming import load_plain, plain_backbone_cfg, slim
from dspnet_mm.slimming.plain_file import save_plain


def write(path, stem='small', subnet='tiny', changes=None, **family):
    """Write a network as slim_export.py does, its meta then changed.

    Returns:
        Module: The network.
    """
    family = make_family(stem=stem, **family)
    backbone = SlimmableResNet(family)
    plain = slim(backbone, family[subnet])
    meta = dict(
        backbone=dict(
            plain_backbone_cfg(family, family[subnet]),
            zero_init_residual=backbone.starts_as_identity),
        image_format=dict(mean=[123.7], std=[58.4], bgr_to_rgb=True),
        input_size=16,
        name=subnet,
        method='dspnet',
        widths=list(family[subnet].widths),
        depths=list(family[subnet].depths),
        params=family.params(family[subnet]),
        flops=family.flops(family[subnet]),
        out_channels=list(family.out_channels(family[subnet])))
    for part, values in (changes or {}).items():
        if isinstance(values, dict):
            meta[part].update(values)
        else:
            meta[part] = values
    save_plain(plain, meta, str(path))
    return plain


@pytest.mark.parametrize('in_channels', [1, 3])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('stem, subnet, kind', [
    ('small', 'tiny', 'SlimResNet'),
    ('imagenet', 'middle', 'SlimResNet'),
    ('imagenet', 'large', 'ResNet'),
])
def test_what_is_exported_is_loaded(tmp_path, stem, subnet, kind, depth,
                                    in_channels):
    plain = write(
        tmp_path / 'network.pth',
        stem,
        subnet,
        depth=depth,
        in_channels=in_channels)
    network = load_plain(str(tmp_path / 'network.pth'))
    assert network.meta['backbone']['type'] == kind
    assert network.image_format.mean == (123.7, )
    images = torch.rand(2, in_channels, 16, 16)
    assert torch.equal(network.backbone(images)[-1], plain(images)[-1])


# MMEngine's registry imports and calls what a config names.
CALL = dict(type='os.mkdir', path='proof')


@pytest.mark.parametrize('part, values, named', [
    ('backbone', dict(init_cfg=CALL), 'init_cfg'),
    ('backbone', dict(init_cfg=[CALL]), 'init_cfg'),
    ('backbone', dict(init_cfg=dict(type='Pretrained', checkpoint='evil.pth')),
     'init_cfg'),
    ('backbone', dict(norm_cfg=CALL), 'norm_cfg'),
    ('backbone', dict(conv_cfg=CALL), 'conv_cfg'),
    ('backbone', dict(plugins=[dict(cfg=CALL)]), 'plugins'),
    ('backbone', dict(_scope_='other'), '_scope_'),
    ('backbone', dict(in_channels=CALL), 'in_channels'),
    ('backbone', dict(zero_init_residual=[CALL]), 'zero_init_residual'),
    ('image_format', CALL, 'type'),
    ('image_format', dict(mean=[CALL]), 'mean'),
])
@pytest.mark.parametrize('stem, subnet', [('small', 'tiny'),
                                          ('imagenet', 'large')])
def test_a_changed_file_has_nothing_built(tmp_path, monkeypatch, stem, subnet,
                                          part, values, named):
    monkeypatch.chdir(tmp_path)
    write('evil.pth', stem, subnet, {part: values})
    with pytest.raises(
            InputError, match=rf'evil.pth: .*{part}\.{named}') as error:
        # As it is done for a random twin and for fine-tuning.
        load_plain('evil.pth').backbone.init_weights()
    assert '\n' not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ['evil.pth']


@pytest.mark.parametrize('key, value', [
    ('input_size', None),
    ('widths', '1'),
    ('name', 3),
])
def test_what_tools_read_is_there(tmp_path, key, value):
    write(tmp_path / 'a.pth', changes={key: value})
    with pytest.raises(InputError, match=f'a.pth: {key} of its meta'):
        load_plain(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('stem, subnet, key', [
    ('imagenet', 'large', 'inner_channels'),
    ('small', 'tiny', 'depth'),
])
def test_each_kind_has_its_own_arguments(tmp_path, stem, subnet, key):
    write(tmp_path / 'a.pth', stem, subnet, dict(backbone={key: 18}))
    with pytest.raises(InputError, match=rf'backbone\.{key}.*allowed are '):
        load_plain(str(tmp_path / 'a.pth'))
