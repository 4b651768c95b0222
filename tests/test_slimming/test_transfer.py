# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What MMDetection and MMSegmentation train with an exported backbone."""
import math

import pytest
import torch
from conftest import run_tool, toolbox_models
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData, PixelData

# Two networks of one family, with the package that describes each: the
# toolbox itself, or ours.
NETWORKS = [('large', None), ('medium', 'dspnet_mm')]
SIZE = 64
# Left, top, right, bottom of what is to be found, in each image.
BOXES = [[8, 8, 40, 40], [24, 16, 56, 48]]


@pytest.fixture(scope='module')
def exports(trained_imagenet_stem, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exports')
    assert run_tool('slim_export.py', trained_imagenet_stem.config,
                    trained_imagenet_stem.checkpoint, '--out-dir', folder,
                    '--subnet', *[name for name, _ in NETWORKS],
                    '--calib-images', 8).returncode == 0
    return folder


def images():
    """Noise, brighter inside the boxes."""
    batch = torch.randint(0, 64, (len(BOXES), 3, SIZE, SIZE))
    for image, (left, top, right, bottom) in zip(batch, BOXES):
        image[:, top:bottom, left:right] += 128
    return list(batch.to(torch.uint8))


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


@pytest.mark.needs('mmdet', 'mmcv.ops')
@pytest.mark.parametrize('name, package', NETWORKS)
def test_a_detector_trains(exports, name, package):
    from mmdet.structures import DetDataSample
    model = get_config('mmdet::_base_/models/faster-rcnn_r50_fpn.py').model
    # Narrow, to be quick.
    model.neck.out_channels = 16
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(
        in_channels=16, fc_out_channels=32, num_classes=2)
    samples = [
        DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                scale_factor=(1., 1.)),
            gt_instances=InstanceData(
                bboxes=torch.tensor([box]).float(),
                labels=torch.tensor([label])))
        for label, box in enumerate(BOXES)
    ]
    check_training('mmdet', model, samples, exports, name, package)


@pytest.mark.needs('mmseg', 'mmcv.ops')
@pytest.mark.parametrize('name, package', NETWORKS)
def test_a_segmentor_trains(exports, name, package):
    from mmseg.structures import SegDataSample
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
    samples = []
    for left, top, right, bottom in BOXES:
        labels = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
        labels[:, top:bottom, left:right] = 1
        samples.append(
            SegDataSample(
                metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)),
                gt_sem_seg=PixelData(data=labels)))
    check_training('mmseg', model, samples, exports, name, package)
