# Copyright (c) The dspnet_mm authors. All rights reserved.
import hashlib
import importlib
import os
import pickle
import sys
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from unittest import mock

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from torchvision.datasets import CIFAR10

from dspnet_mm.errors import InputError

NAMES = ['cat', 'dog']


@pytest.fixture(scope='module')
def tool():
    folder = os.path.join(ROOT, 'tools', 'dataset')
    with mock.patch.object(sys, 'path', [folder, *sys.path]):
        yield importlib.import_module('download_cifar10')


def checksum(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Few images in CIFAR-10's format, to be downloaded from this machine."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)
    images = {}
    for part, names in (('train', CIFAR10.train_list), ('test',
                                                        CIFAR10.test_list)):
        for name, _ in names:
            pixels = generator.integers(0, 256, (2, 3072), dtype=np.uint8)
            images.setdefault(part, []).extend(
                pixels.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))
            content = dict(data=pixels, labels=[0, 1])
            (folder / name).write_bytes(pickle.dumps(content))
    meta = dict(label_names=NAMES)
    (folder / 'batches.meta').write_bytes(pickle.dumps(meta))
    path = tmp_path / CIFAR10.filename
    with tarfile.open(path, 'w:gz') as file:
        file.add(folder, CIFAR10.base_folder)
    for attribute in ('train_list', 'test_list'):
        monkeypatch.setattr(CIFAR10, attribute,
                            [[name, checksum(folder / name)]
                             for name, _ in getattr(CIFAR10, attribute)])
    monkeypatch.setattr(
        CIFAR10, 'meta',
        dict(CIFAR10.meta, md5=checksum(folder / 'batches.meta')))
    monkeypatch.setattr(CIFAR10, 'tgz_md5', checksum(path))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv('no_proxy', '127.0.0.1')
        monkeypatch.setattr(
            CIFAR10, 'url',
            f'http://127.0.0.1:{server.server_port}/{path.name}')
        yield images
        server.shutdown()


def test_each_class_gets_a_folder(tool, archive, tmp_path):
    out = tmp_path / 'data' / 'cifar10'
    with mock.patch.object(sys, 'argv', ['tool', '--out', str(out)]):
        tool.main()
    for part, images in archive.items():
        paths = sorted(
            (out / part).glob('*/*.png'), key=lambda path: path.name)
        assert len(paths) == len(images)
        for index, (path, pixels) in enumerate(zip(paths, images)):
            assert path.parent.name == NAMES[index % 2]
            assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert [path.name for path in out.parent.iterdir()] == ['cifar10']


def test_a_broken_archive_leaves_nothing(tool, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, 'tgz_md5', '0' * 32)
    out = tmp_path / 'data' / 'cifar10'
    with mock.patch.object(sys, 'argv', ['tool', '--out', str(out)]), \
            pytest.raises(tool.VerificationError, match='cannot be'):
        tool.main()
    assert not any(out.parent.iterdir())


def test_what_is_there_is_not_replaced(tool, tmp_path):
    with mock.patch.object(sys, 'argv', ['tool', '--out', str(tmp_path)]), \
            pytest.raises(InputError, match='exists: give the name of'):
        tool.main()
