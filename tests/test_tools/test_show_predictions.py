# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What the transfer tool's test does not see of this tool."""
import os
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.structures import InstanceData, PixelData

TOOL = 'show_predictions.py'


@pytest.fixture(scope='module')
def tool():
    import importlib.util
    spec = importlib.util.spec_from_file_location(
        'show_predictions', os.path.join(ROOT, 'tools', TOOL))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.needs('mmdet')
def test_boxes_and_masks_stay_on_their_pixels(tool):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    image = np.zeros((6, 8, 3), np.uint8)
    image[1:3, 2:5] = 255
    mask = image[None, ..., 0] > 0
    box = torch.tensor([[2., 1., 5., 3.]])
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=box, masks=BitmapMasks(mask.astype(np.uint8), 6, 8)),
        pred_instances=InstanceData(bboxes=box, masks=torch.tensor(mask)))
    large, sample = tool.enlarged(image, sample, 3)
    assert large.shape == (18, 24, 3)
    assert sample.gt_instances.bboxes.tolist() == [[6, 3, 15, 9]]
    assert sample.pred_instances.bboxes.tolist() == [[6, 3, 15, 9]]
    for masks in (sample.gt_instances.masks.masks,
                  sample.pred_instances.masks.numpy()):
        assert np.array_equal(masks[0] > 0, large[..., 0] > 0)


@pytest.mark.needs('mmseg')
def test_labels_stay_on_their_pixels(tool):
    from mmseg.structures import SegDataSample
    labels = torch.arange(12).view(1, 3, 4)
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=labels), pred_sem_seg=PixelData(data=labels))
    image = labels[0, ..., None].numpy().astype(np.uint8).repeat(3, -1)
    large, sample = tool.enlarged(image, sample, 2)
    for maps in (sample.gt_sem_seg, sample.pred_sem_seg):
        assert np.array_equal(maps.data[0].numpy(), large[..., 0])


@pytest.mark.parametrize('config, checkpoint, complaint', [
    (None, None, 'holds 0 configs'),
    ("default_scope = 'mmdet'", None, 'holds no checkpoint'),
    ("default_scope = 'mmcls'", 'epoch_1.pth', 'mmcls.*mmdet or mmseg'),
])
def test_a_wrong_work_directory_is_refused(config, checkpoint, complaint,
                                           tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    if config:
        (work_dir / 'config.py').write_text(config)
    if checkpoint:
        (work_dir / checkpoint).write_bytes(b'')
    done = run_tool(TOOL, work_dir, '--out', tmp_path / 'picture.png')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr), done.stderr
    assert os.listdir(tmp_path) == ['work']


def test_a_work_directory_that_is_missing_is_refused(tmp_path):
    done = run_tool(TOOL, tmp_path / 'nowhere', '--out',
                    tmp_path / 'picture.png')
    assert done.returncode == 2
    assert 'nowhere' in done.stderr
