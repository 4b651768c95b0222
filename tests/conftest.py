# Copyright (c) The dspnet_mm authors. All rights reserved.
import importlib
import io
import os
import runpy
import sys
import uuid
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from dspnet_mm import ResNetFamily

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIGITS_CONFIG = os.path.join(
    ROOT, 'configs', 'dspnet',
    'dspnet_resnet18-small_1xb32-coslr-40e_digits.py')
CIFAR_CONFIG = os.path.join(
    ROOT, 'configs', 'dspnet',
    'dspnet_resnet18-small_1xb256-coslr-100e_cifar10.py')
SDR_CONFIG = os.path.join(ROOT, 'configs', 'sdr',
                          'sdr_resnet18-small_1xb32-coslr-40e_digits.py')

CIFAR10_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog',
                   'frog', 'horse', 'ship', 'truck')
# BCCD's annotation of a cell.
BOX = '''<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>
<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'''

# Several threads on few cores slow each other down.
torch.set_num_threads(1)


class RunsCode:
    """Calls something when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def pytest_runtest_setup(item):
    for marker in item.iter_markers('needs'):
        for name in marker.args:
            try:
                importlib.import_module(name)
            except ImportError as error:
                complaint = f'needs {name}: {error}'
                # Set where tools/test.sh has put everything into place that
                # there is: timm cannot be imported on Python 3.8.
                if os.environ.get('DSPNET_MM_TEST_ALL') and not (
                        name == 'timm' and sys.version_info < (3, 9)):
                    pytest.fail(complaint)
                pytest.skip(complaint)


@pytest.fixture(autouse=True)
def no_runner_before():
    """Each test begins as outside of a runner, with the scope set."""
    MessageHub.get_instance(f'test-{uuid.uuid4()}')
    init_default_scope('mmselfsup')


def make_family(depth=18, base_channels=8, stem='small', **kwargs):
    settings = dict(
        input_size=16,
        desired=[
            dict(name='large'),
            dict(name='middle', widths=[0.5, 0.75, 1, 0.5], depths=1),
            dict(name='tiny', widths=0.25, depths=1),
        ])
    settings.update(kwargs)
    return ResNetFamily(
        depth, base_channels=base_channels, stem=stem, **settings)


@pytest.fixture
def family():
    return make_family()


def model_cfg(**kwargs):
    """A DSPNet that is quick to train."""

    def mlp(**more):
        return dict(
            type='SlimmableNonLinearNeck',
            hid_channels=16,
            out_channels=8,
            num_layers=2,
            with_bias=True,
            with_last_bn=False,
            **more)

    cfg = dict(
        type='DSPNet',
        family=dict(
            type='ResNetFamily',
            depth=18,
            base_channels=8,
            stem='small',
            input_size=16,
            desired=[
                dict(name='large'),
                dict(name='middle', widths=[0.5, 0.75, 1, 0.5], depths=1),
                dict(name='tiny', widths=0.25, depths=1),
            ]),
        sampler=dict(type='SandwichSampler', num_random=1, desired_prob=1.0),
        backbone=dict(type='SlimmableResNet'),
        neck=mlp(with_avg_pool=True),
        head=dict(
            type='LatentPredictHead',
            predictor=mlp(
                in_channels=8, slim_input=False, with_avg_pool=False),
            loss=dict(type='CosineSimilarityLoss')))
    cfg.update(kwargs)
    return cfg


def digits_cfg(work_dir, epochs=1, images=96, config=DIGITS_CONFIG, **kwargs):
    """A config for the digits, cut down to seconds."""
    cfg = Config.fromfile(config)
    cfg.model.family.base_channels = 8
    cfg.train_cfg.max_epochs = epochs
    cfg.train_dataloader.batch_size = 32
    cfg.train_dataloader.num_workers = 0
    cfg.train_dataloader.persistent_workers = False
    cfg.train_dataloader.dataset.indices = images
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.interval = 1
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'WARNING'
    # Else a second runner in this process would write where the first did.
    cfg.experiment_name = cfg.visualizer.name = f'test-{uuid.uuid4()}'
    cfg.merge_from_dict(kwargs)
    return cfg


def sdr_cfg(work_dir, **kwargs):
    """SDR on digits: four epochs of five iterations, clusters from half on."""
    cfg = digits_cfg(work_dir, epochs=4, images=160, config=SDR_CONFIG)
    cfg.model.family.update(base_channels=12, shared_channels=4)
    cfg.custom_hooks = [dict(type='ClusterHook')]
    cfg.merge_from_dict(kwargs)
    return cfg


# The toolboxes that exports are for, each with its registry.
TOOLBOXES = [
    'mmcls',
    pytest.param('mmdet', marks=pytest.mark.needs('mmdet', 'mmcv.ops')),
    pytest.param('mmseg', marks=pytest.mark.needs('mmseg', 'mmcv.ops'))
]


def toolbox_models(name):
    """The registry of a toolbox's networks, made the current scope."""
    init_default_scope(name)
    return importlib.import_module(f'{name}.registry').MODELS


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def run_tool(name, *args):
    """Run a tool in this process, as its command would.

    Returns:
        SimpleNamespace: With ``returncode``, ``stdout`` and ``stderr``.
    """
    path = os.path.join(ROOT, 'tools', name)
    stdout, stderr, returncode = io.StringIO(), io.StringIO(), 0
    # As Python puts a script's own folder first.
    search = [os.path.dirname(path), *sys.path]
    with mock.patch.object(sys, 'argv', [path, *map(str, args)]), \
            mock.patch.object(sys, 'path', search), \
            redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as error:
            returncode = error.code
    return SimpleNamespace(
        returncode=returncode,
        stdout=stdout.getvalue(),
        stderr=stderr.getvalue())


def mixture_sources(folder, train=14, test=6, cells_train=4, cells_test=3):
    """CIFAR-10 and BCCD in small, of noise, as cifar10/ and bccd/.

    Args:
        folder (Path): Where to write.
        train (int): Training images of each class of CIFAR-10. Defaults to
            14.
        test (int): Test images of each. Defaults to 6.
        cells_train (int): Training images of BCCD, of four cells each.
            Defaults to 4.
        cells_test (int): Its test images. Defaults to 3.

    Returns:
        Path: The folder.
    """
    generator = np.random.default_rng(0)

    def noise(path, height, width):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)

    for name in CIFAR10_CLASSES:
        for split, number in (('train', train), ('test', test)):
            for index in range(number):
                noise(folder / 'cifar10' / split / name / f'{index}.png', 32,
                      32)
    bccd = folder / 'bccd'
    for place in ('Annotations', 'ImageSets/Main'):
        (bccd / place).mkdir(parents=True)
    for split, number in (('trainval', cells_train), ('test', cells_test)):
        names = [f'{split}{index}' for index in range(number)]
        (bccd / 'ImageSets' / 'Main' / f'{split}.txt').write_text(
            '\n'.join(names))
        for name in names:
            noise(bccd / 'JPEGImages' / f'{name}.jpg', 60, 80)
            boxes = [
                BOX.format(label, 10 * place, 5, 10 * place + 9, 25)
                for place, label in enumerate(('RBC', 'RBC', 'WBC',
                                               'Platelets'))
            ]
            # One without an area.
            boxes.append(BOX.format('RBC', 5, 5, 5, 5))
            (bccd / 'Annotations' / f'{name}.xml'
             ).write_text(f'<annotation>{"".join(boxes)}</annotation>')
    return folder


def train_on_digits(folder, **kwargs):
    """Train a supernet for an epoch.

    Returns:
        SimpleNamespace: With ``config``, ``checkpoint`` (paths) and ``cfg``.
    """
    cfg = digits_cfg(folder, **kwargs)
    train(cfg)
    config = folder / 'config.py'
    cfg.dump(str(config))
    return SimpleNamespace(
        config=str(config), checkpoint=str(folder / 'epoch_1.pth'), cfg=cfg)


@pytest.fixture(scope='session')
def trained_sdr(tmp_path_factory):
    """An SDR of 20 iterations, each second of which is kept.

    In a folder that holds another run's clusters.
    """
    folder = tmp_path_factory.mktemp('sdr')
    (folder / 'clusters.csv').write_text('of another run')
    cfg = sdr_cfg(folder)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    runner = train(cfg)
    config = folder / 'config.py'
    cfg.dump(str(config))
    return SimpleNamespace(
        folder=folder,
        runner=runner,
        config=str(config),
        checkpoint=str(folder / 'iter_20.pth'))


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A supernet trained on digits for an epoch: config and checkpoint."""
    return train_on_digits(tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='session')
def trained_imagenet_stem(tmp_path_factory):
    """The same, but with stock ResNets among its sub-networks."""
    return train_on_digits(
        tmp_path_factory.mktemp('trained_imagenet_stem'),
        **{'model.family.stem': 'imagenet'})


@pytest.fixture(scope='session')
def trained_64_channels(tmp_path_factory):
    """The same, with networks of torchvision's and timm's width."""
    return train_on_digits(
        tmp_path_factory.mktemp('trained_64_channels'), **{
            'model.family.stem': 'imagenet',
            'model.family.base_channels': 64
        })
