# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What the toolboxes train with an exported backbone."""
import glob
import json
import math
import os
import tarfile

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool, toolbox_models, train_on_digits
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

from dspnet_mm import InputError, transfer
from dspnet_mm.slimming import load_plain

# Two networks of one family, with the package that describes each: the
# toolbox itself, or ours.
NETWORKS = [('large', None), ('medium', 'dspnet_mm')]
SLIMCLR_CONFIG = os.path.join(
    ROOT, 'configs', 'slimclr',
    'slimclr-mocov2_resnet18-small_1xb32-coslr-40e_digits.py')
SIZE = 64
# Left, top, right, bottom of what is to be found, in each image.
BOXES = [[8, 8, 40, 40], [24, 16, 56, 48]]


def export(trained, folder, *names):
    assert run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir', folder, '--subnet', *names, '--calib-images',
                    8).returncode == 0
    return folder


@pytest.fixture(scope='module')
def exports(trained_imagenet_stem, tmp_path_factory):
    return export(trained_imagenet_stem, tmp_path_factory.mktemp('exports'),
                  'large', 'medium')


@pytest.fixture(scope='module')
def small_stem_exports(trained, tmp_path_factory):
    return export(trained, tmp_path_factory.mktemp('small_stem_exports'),
                  'large', 'medium')


@pytest.fixture(scope='module')
def slimclr_exports(tmp_path_factory):
    """Of another method, whose widths have batch norms of their own."""
    trained = train_on_digits(
        tmp_path_factory.mktemp('slimclr'),
        config=SLIMCLR_CONFIG,
        **{'model.family.stem': 'imagenet'})
    return export(trained, tmp_path_factory.mktemp('slimclr_exports'),
                  'width_0.50')


def images():
    """Noise, brighter inside the boxes."""
    batch = torch.randint(0, 64, (len(BOXES), 3, SIZE, SIZE))
    for image, (left, top, right, bottom) in zip(batch, BOXES):
        image[:, top:bottom, left:right] += 128
    return list(batch.to(torch.uint8))


def detection_samples():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    samples = []
    for label, (left, top, right, bottom) in enumerate(BOXES):
        mask = np.zeros((1, SIZE, SIZE), np.uint8)
        mask[:, top:bottom, left:right] = 1
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_shape=(SIZE, SIZE),
                    ori_shape=(SIZE, SIZE),
                    scale_factor=(1., 1.)),
                gt_instances=InstanceData(
                    bboxes=torch.tensor([[left, top, right, bottom]]).float(),
                    labels=torch.tensor([label]),
                    masks=BitmapMasks(mask, SIZE, SIZE))))
    return samples


def segmentation_samples():
    from mmseg.structures import SegDataSample
    samples = []
    for left, top, right, bottom in BOXES:
        labels = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
        labels[:, top:bottom, left:right] = 1
        samples.append(
            SegDataSample(
                metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)),
                gt_sem_seg=PixelData(data=labels)))
    return samples


def classification_samples():
    from mmcls.structures import ClsDataSample
    return [ClsDataSample().set_gt_label(label) for label in range(len(BOXES))]


SAMPLES = dict(
    mmcls=classification_samples,
    mmdet=detection_samples,
    mmseg=segmentation_samples)


def check_training(toolbox, model_cfg, samples, exports, name, package):
    """Put an exported backbone into a toolbox's own model and train it."""
    torch.manual_seed(0)
    data = dict(inputs=images(), data_samples=samples)
    exported = Config.fromfile(str(exports / f'{name}.py'))
    weights = str(exports / f'{name}.pth')
    model_cfg.backbone = dict(
        exported.backbone,
        out_indices=(0, 1, 2, 3),
        # The statistics of digits of 12 pixels do not hold here.
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint=weights))
    # Any others, and the first step would fail.
    model_cfg.neck.in_channels = exported.out_channels
    model = toolbox_models(toolbox).build(model_cfg)
    model.init_weights()
    backbone = model.backbone
    assert type(backbone).__module__.split('.')[0] == (package or toolbox)

    # Loading a file into a model that is being made forgives missing keys.
    saved = torch.load(weights, weights_only=True)['state_dict']
    loaded = backbone.state_dict()
    assert loaded.keys() == saved.keys()
    for key, tensor in saved.items():
        assert torch.equal(loaded[key], tensor), key

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    wrapper = OptimWrapper(optimizer)
    losses = [
        float(model.train_step(data, wrapper)['loss']) for _ in range(10)
    ]
    assert all(map(math.isfinite, losses)), losses
    assert losses[-1] < 0.85 * losses[0], losses
    for key, parameter in backbone.named_parameters():
        assert not torch.equal(parameter, saved[key]), key


def detector():
    model = get_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py').model
    # Narrow, to be quick.
    model.neck.out_channels = 16
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(
        in_channels=16, fc_out_channels=32, num_classes=2)
    return model


def segmentor():
    model = get_config('mmseg::_base_/models/fpn_r50.py').model
    model.pretrained = None
    model.data_preprocessor.size = (SIZE, SIZE)
    # Narrow, to be quick, and in one process.
    model.neck.out_channels = 16
    model.decode_head.update(
        in_channels=4 * [16],
        channels=16,
        num_classes=2,
        norm_cfg=dict(type='BN'))
    return model


@pytest.mark.parametrize('networks, name, package', [
    *[('exports', *network) for network in NETWORKS],
    ('slimclr_exports', 'width_0.50', None),
])
@pytest.mark.parametrize('toolbox, make', [
    pytest.param(
        'mmdet', detector, marks=pytest.mark.needs('mmdet', 'mmcv.ops')),
    pytest.param(
        'mmseg', segmentor, marks=pytest.mark.needs('mmseg', 'mmcv.ops')),
])
def test_a_toolboxs_own_model_trains(toolbox, make, networks, name, package,
                                     request):
    exports = request.getfixturevalue(networks)
    check_training(toolbox, make(), SAMPLES[toolbox](), exports, name, package)


# --- The configs -------------------------------------------------------------

BENCHMARKS = os.path.join(ROOT, 'configs', 'benchmarks')
CONFIGS = sorted(
    os.path.relpath(path, BENCHMARKS) for path in glob.glob(
        os.path.join(BENCHMARKS, '**', '*slimmed*.py'), recursive=True)
    if '_base_' not in path)


def cases():
    """Each config with the network of our class, one of each toolbox with the
    stock one, too."""
    seen = set()
    for path in CONFIGS:
        toolbox = path.split(os.sep)[0]
        needed = dict(
            mmdetection=('mmdet', 'mmcv.ops'),
            mmsegmentation=('mmseg', 'mmcv.ops')).get(toolbox)
        marks = [pytest.mark.needs(*needed)] if needed else []
        stock, ours = NETWORKS
        for network in [ours] if toolbox in seen else [stock, ours]:
            yield pytest.param(path, *network, marks=marks)
        seen.add(toolbox)


def read(path):
    return Config.fromfile(os.path.join(BENCHMARKS, path))


def test_there_are_transfer_configs():
    assert len(CONFIGS) >= 15
    assert {path.split(os.sep)[0]
            for path in CONFIGS
            } == {'classification', 'mmdetection', 'mmsegmentation'}


@pytest.mark.parametrize('path, name, package', cases())
def test_a_config_trains_a_step(path, name, package, exports,
                                small_stem_exports, tmp_path, monkeypatch,
                                caplog):
    torch.manual_seed(0)
    # The scenes of digits are too small for the other stem.
    folder = small_stem_exports if 'digits' in path else exports
    weights = str(folder / f'{name}.pth')
    monkeypatch.setenv('EXPORT', weights)
    root = 'some/where'
    if 'folder' in path:
        # Here the number of classes depends on it.
        root = str(tmp_path)
        for folder in ('train/a', 'train/b', 'val/a', 'val/b'):
            (tmp_path / folder).mkdir(parents=True)
    elif 'coco-format' in path:
        # Here the classes, too.
        root = str(tmp_path)
        annotations = dict(
            images=[dict(id=1, file_name='1.png', width=SIZE, height=SIZE)],
            annotations=[
                dict(
                    id=1,
                    image_id=1,
                    category_id=3,
                    bbox=[8, 8, 32, 32],
                    area=32 * 32,
                    iscrowd=0)
            ],
            categories=[dict(id=3, name='a'),
                        dict(id=7, name='b')])
        (tmp_path / 'annotations').mkdir()
        for part in ('train', 'test'):
            (tmp_path / part).mkdir()
            (tmp_path / part / '1.png').touch()
            (tmp_path / 'annotations' / f'{part}.json').write_text(
                json.dumps(annotations))
    monkeypatch.setenv('DATA_ROOT', root)
    cfg = read(path)
    toolbox = cfg.default_scope
    # All of the data is there.
    for part in ('train', 'val', 'test'):
        text = str(cfg[f'{part}_dataloader'])
        assert root in text and "'data_root': 'data/" not in text

    if 'data_preprocessor' not in cfg.model:
        cfg.model.data_preprocessor = dict(
            cfg.data_preprocessor, type='ClsDataPreprocessor')
    exported = transfer.normalization()
    assert cfg.model.data_preprocessor.mean == exported['mean']
    if toolbox == 'mmseg':
        cfg.model.data_preprocessor.size = (SIZE, SIZE)
    model = toolbox_models(toolbox).build(cfg.model)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    model.init_weights()
    logger.removeHandler(caplog.handler)
    model = revert_sync_batchnorm(model)
    saved = torch.load(weights, weights_only=True)['state_dict']
    assert f'loaded all {len(saved)} tensors of {weights}' in caplog.text
    backbone = model.backbone
    assert type(backbone).__module__.split('.')[0] == (package or toolbox)
    assert backbone.state_dict().keys() == saved.keys()
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, saved[key]), key

    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = model.train_step(
        dict(inputs=images(), data_samples=SAMPLES[toolbox]()), wrapper)
    assert math.isfinite(float(losses['loss']))
    frozen = 'linear' in path
    for key, tensor in backbone.state_dict().items():
        if frozen or key in dict(backbone.named_parameters()):
            assert torch.equal(tensor, saved[key]) == frozen, key


def test_folders_of_other_classes_are_refused(tmp_path):
    for folder in ('train/a', 'train/b', 'val/b'):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match='different classes .a in one only'):
        transfer.labelled_images(str(tmp_path))


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_boxes_without_area_are_left_out(exports, tmp_path, monkeypatch):
    archive = os.path.join(
        os.path.dirname(ROOT), 'shared', 'data', 'bccd.tar.xz')
    if not os.path.exists(archive):
        pytest.skip('needs the BCCD data set')
    with tarfile.open(archive) as file:
        file.extractall(tmp_path)
    monkeypatch.setenv('EXPORT', str(exports / 'medium.pth'))
    monkeypatch.setenv('DATA_ROOT', str(tmp_path / 'bccd'))
    cfg = read('mmdetection/bccd/retinanet_slimmed_fpn_1xb8-6e_bccd.py')
    init_default_scope('mmdet')
    name, left_out = 'BloodImage_00343', 0
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset_of_test = DATASETS.build(cfg.test_dataloader.dataset)
    assert (len(dataset), len(dataset_of_test)) == (205, 72)
    for index, known in enumerate(map(dataset.get_data_info, range(205))):
        boxes = dataset[index]['data_samples'].gt_instances.bboxes
        assert (boxes.widths > 1).all() and (boxes.heights > 1).all()
        if len(boxes) < len(known['instances']):
            assert known['img_id'] == name
            left_out += len(known['instances']) - len(boxes)
    assert left_out == 1


@pytest.mark.parametrize('given, complaint', [
    ('smal.pth', r'smal.pth does not exist: give \S+large.pth or \S+medium'),
    ('.', r'is no .pth file: give \S+large.pth or \S+medium.pth'),
    ('large.py', r'large.py is no .pth file: give \S+large.pth'),
    ('further/large.pth', r'large.pth does not exist: give one that tools/'),
])
def test_what_export_can_be_is_said(given, complaint, exports, monkeypatch):
    monkeypatch.setenv('EXPORT', str(exports / given))
    with pytest.raises(InputError, match=complaint):
        transfer.backbone()


def test_classifiers_of_all_networks_are_trained_together(
        exports, tmp_path, monkeypatch):
    for part in ('train', 'test'):
        for level, name in enumerate('ab'):
            folder = tmp_path / 'data' / part / name
            folder.mkdir(parents=True)
            for number in range(8):
                image = np.full((SIZE, SIZE, 3), 150 * level, np.uint8)
                cv2.imwrite(str(folder / f'{number}.png'), image)
    monkeypatch.setenv('EXPORT', str(exports / 'medium.pth'))
    monkeypatch.setenv('DATA_ROOT', str(tmp_path / 'data'))
    cfg = read('classification/folder/'
               'switchable_linear-1xb128-coslr-100e_folder.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=8)
    cfg.train_cfg.update(max_epochs=20, val_interval=20)
    cfg.work_dir = str(tmp_path / 'out')
    runner = Runner.from_cfg(cfg)
    before = {
        name: tensor.clone()
        for name, tensor in runner.model.backbone.state_dict().items()
    }
    metrics = runner.train() and runner.val()
    assert [*metrics] == ['accuracy/large', 'accuracy/medium']
    # Black and grey are told apart from frozen networks.
    assert min(metrics.values()) == 100
    after = runner.model.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    large = load_plain(str(exports / 'large.pth')).backbone.state_dict()
    assert all(
        torch.equal(after[f'networks.0.{name}'], tensor)
        for name, tensor in large.items())


def test_classifiers_of_random_networks_are_not_trained_together(
        exports, monkeypatch):
    monkeypatch.setenv('EXPORT', str(exports / 'medium.pth'))
    monkeypatch.setenv('INIT', 'random')
    with pytest.raises(InputError, match='INIT=random is not allowed here'):
        transfer.folder_networks()


def test_mmclassification_infers(exports, tmp_path, monkeypatch):
    from mmcls.apis import init_model
    init_default_scope('mmcls')
    for folder in ('train/a', 'train/b', 'val/a', 'val/b'):
        (tmp_path / folder).mkdir(parents=True)
    weights = str(exports / 'medium.pth')
    monkeypatch.setenv('EXPORT', weights)
    monkeypatch.setenv('DATA_ROOT', str(tmp_path))
    cfg = read('classification/folder/slimmed_ft-1xb128-coslr-100e_folder.py')
    model = init_model(cfg, device='cpu')
    model.backbone.init_weights()
    trained = str(tmp_path / 'epoch_1.pth')
    torch.save(
        dict(
            state_dict=model.state_dict(),
            meta=dict(dataset_meta=dict(classes=('a', 'b')))), trained)
    image = images()[0].permute(1, 2, 0).numpy()
    model = init_model(cfg, trained, device='cpu')
    # As its inference_model does, which this version of MMEngine breaks.
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline[1:])
    result, = model.test_step(pseudo_collate([pipeline(dict(img=image))]))

    # The plain network, on an image that is normalised by hand.
    backbone = load_plain(weights).backbone
    size = transfer.input_size()
    assert image.shape[0] != size
    resized = cv2.resize(image, (size, size))
    mean, std = (
        np.array(transfer.normalization()[key]) for key in ('mean', 'std'))
    # From OpenCV's order of channels to RGB.
    inputs = torch.tensor((resized[..., ::-1] - mean) / std).permute(2, 0, 1)
    with torch.no_grad():
        expected = backbone(inputs[None].float())[-1]
        features = model.extract_feat(inputs[None].float(), stage='backbone')
        scores = model.head.fc(expected.mean((2, 3))).softmax(-1)[0]
    torch.testing.assert_close(features[-1], expected)
    torch.testing.assert_close(result.pred_label.score, scores)


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_random_weights_are_the_toolboxs_own(exports, monkeypatch):
    monkeypatch.setenv('EXPORT', str(exports / 'medium.pth'))
    monkeypatch.setenv('INIT', 'random')
    cfg = read('mmdetection/coco/retinanet_slimmed_fpn_1x_coco.py')
    assert 'init_cfg' not in cfg.model.backbone
    model = toolbox_models('mmdet').build(cfg.model)
    model.init_weights()
    saved = torch.load(exports / 'medium.pth', weights_only=True)['state_dict']
    assert not torch.equal(model.backbone.conv1.weight, saved['conv1.weight'])


@pytest.mark.parametrize('environment, complaint', [
    (dict(), 'set EXPORT'),
    (dict(EXPORT='nowhere.pth'), 'nowhere.pth does not exist'),
    (dict(EXPORT='{checkpoint}'), 'was not written by slim_export.py'),
    (dict(EXPORT='{exports}/medium.pth',
          INIT='none'), 'INIT=none.*slimmed, random'),
])
def test_a_wrong_export_is_refused(environment, complaint, exports,
                                   trained_imagenet_stem, monkeypatch):
    monkeypatch.delenv('EXPORT', raising=False)
    for key, value in environment.items():
        value = value.format(
            exports=exports, checkpoint=trained_imagenet_stem.checkpoint)
        monkeypatch.setenv(key, value)
    with pytest.raises(InputError, match=complaint):
        read('classification/imagenet/slimmed_linear-8xb512-coslr-90e_in1k.py')


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_a_detector_wants_the_stem_that_its_anchors_are_for(
        small_stem_exports, monkeypatch):
    monkeypatch.setenv('EXPORT', str(small_stem_exports / 'medium.pth'))
    with pytest.raises(InputError, match="'small'.*made for 'imagenet'"):
        read('mmdetection/coco/retinanet_slimmed_fpn_1x_coco.py')


def test_weights_that_do_not_fit_are_refused(exports, monkeypatch):
    monkeypatch.setenv('EXPORT', str(exports / 'medium.pth'))
    cfg = read(
        'classification/imagenet/slimmed_linear-8xb512-coslr-90e_in1k.py')
    cfg.model.backbone.init_cfg.checkpoint = str(exports / 'large.pth')
    model = toolbox_models('mmcls').build(cfg.model)
    before = model.backbone.conv1.weight.clone()
    with pytest.raises(
            InputError,
            match=r'large.pth does not fit SlimResNet: \d+ unexpected keys '
            r'\(layer.*of another shape \(conv1.weight'):
        model.init_weights()
    assert torch.equal(model.backbone.conv1.weight, before)
