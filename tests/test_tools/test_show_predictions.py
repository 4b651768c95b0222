# Copyright (c) The dspnet_mm authors. All rights reserved.
"""What the transfer tool's test does not see of this tool."""
import json
import os
import re
import warnings

import mmcv
import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool, toolbox_models
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

TOOL = 'show_predictions.py'
VISUALIZER = dict(type='DetLocalVisualizer', name='visualizer')
# The first colours that classes get, by Matplotlib's names.
BLUE, ORANGE, GREEN = (31, 119, 180), (255, 127, 14), (44, 160, 44)
detects = pytest.mark.needs('mmdet', 'mmcv.ops')


@pytest.fixture(scope='module')
def tool():
    import importlib.util
    spec = importlib.util.spec_from_file_location(
        'show_predictions', os.path.join(ROOT, 'tools', TOOL))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_cfg(root, scale=(80, 60)):
    """White test images with a box that fills them."""
    images = [
        dict(id=index, file_name=f'{index}.png', width=80, height=60)
        for index in range(2)
    ]
    boxes = [
        dict(
            id=index,
            image_id=index,
            category_id=index,
            bbox=[0, 0, 80, 60],
            area=4800,
            iscrowd=0) for index in range(2)
    ]
    classes = ['RBC', 'WBC', 'Platelets']
    names = [dict(id=index, name=name) for index, name in enumerate(classes)]
    root.mkdir(exist_ok=True)
    (root / 'test.json').write_text(
        json.dumps(dict(images=images, annotations=boxes, categories=names)))
    for image in images:
        mmcv.imwrite(
            np.full((60, 80, 3), 255, np.uint8),
            str(root / image['file_name']))
    return dict(
        type='CocoDataset',
        metainfo=dict(classes=classes),
        data_root=str(root),
        ann_file='test.json',
        data_prefix=dict(img=''),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('ori_shape', 'img_shape', 'scale_factor')),
        ])


def detector(folder, data):
    """The work directory of a detector that has learned nothing yet."""
    model = dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=dict(
            type='ResNet', depth=18, base_channels=8, out_indices=(2, 3)),
        neck=dict(
            type='FPN', in_channels=[32, 64], out_channels=8, num_outs=2),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[16, 32]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
        test_cfg=dict(
            nms_pre=100,
            min_bbox_size=0,
            score_thr=0.,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5))
    folder.mkdir(parents=True)
    Config(
        dict(
            default_scope='mmdet',
            model=model,
            test_dataloader=dict(dataset=data),
            visualizer=VISUALIZER)).dump(str(folder / 'config.py'))
    network = toolbox_models('mmdet').build(model)
    network.init_weights()
    torch.save(dict(state_dict=network.state_dict()), folder / 'epoch_1.pth')
    return folder


def has(image, color):
    """Whether lines of a colour, of MMDetection's opacity, are on white."""
    drawn = 0.8 * np.array(color) + 0.2 * 255
    return (abs(image - drawn).max(-1) < 3).any()


@detects
def test_columns_without_boxes_are_explained(tmp_path):
    folder = detector(tmp_path / 'work', data_cfg(tmp_path / 'data'))
    picture = tmp_path / 'picture.png'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        done = run_tool(TOOL, folder, '--out', picture)
        # The weaker ones are there, as a rule at the borders.
        more = run_tool(TOOL, folder, '--score-thr', 0, '--out', picture)
    assert (done.returncode, more.returncode) == (0, 0), done.stderr
    assert ('work: no box with a score above 0.3 on 2 of 2 images; a lower '
            '--score-thr shows weaker ones') in done.stderr
    assert 'no box' not in more.stderr
    # Which the true boxes reach, too.
    assert not any('out of bounds' in str(warning.message)
                   for warning in caught)


@detects
def test_no_two_columns_have_the_same_title(tool, tmp_path):
    data = data_cfg(tmp_path / 'data')
    folders = [
        detector(tmp_path / name, data) for name in ('a/x', 'b/x', 'b/y')
    ]
    for folder in folders[:2]:
        (folder / 'result.json').write_text(
            json.dumps(dict(subnet='tiny', init='slimmed', seed=0)))
    done = run_tool(TOOL, *folders, '--out', tmp_path / 'picture.png')
    assert done.returncode == 0, done.stderr
    same = 'tiny, slimmed, seed 0'
    for title in (f'{same} (a/x)', f'{same} (b/x)', 'y'):
        assert f'\n{title}\n' in done.stdout
    siblings = tool.told_apart([
        tool.Trained(same, None, f'work/{name}/epoch_1.pth') for name in 'ab'
    ])
    assert [one.name for one in siblings] == [f'{same} (a)', f'{same} (b)']


@detects
def test_a_work_directory_is_drawn_once(tmp_path):
    folder = detector(tmp_path / 'work', data_cfg(tmp_path / 'data'))
    done = run_tool(TOOL, folder, f'{folder}/', '--out',
                    tmp_path / 'picture.png')
    assert done.returncode == 2
    assert 'given twice' in done.stderr
    assert not (tmp_path / 'picture.png').exists()


@detects
def test_other_test_images_are_refused(tmp_path):
    folders = [
        detector(tmp_path / name, data_cfg(tmp_path / f'data_{name}'))
        for name in ('photos', 'digits')
    ]
    # Refused before anything is computed: there are no weights.
    for folder in folders:
        (folder / 'epoch_1.pth').write_bytes(b'')
    done = run_tool(TOOL, *folders, '--out', tmp_path / 'picture.png')
    assert done.returncode == 2
    for folder in folders:
        assert str(folder) in done.stderr
    assert 'columns must be of the same test images' in done.stderr
    assert not (tmp_path / 'picture.png').exists()


@detects
def test_each_network_reads_the_same_images_its_own_way(tool, tmp_path):
    networks = [
        tool.find(
            str(
                detector(tmp_path / f'{scale[0]}',
                         data_cfg(tmp_path / 'data', scale))))
        for scale in ((80, 60), (160, 120))
    ]
    datasets = tool.datasets_of(networks)
    assert [dataset[0]['inputs'].shape[-1]
            for dataset in datasets] == [80, 160]


@detects
@pytest.mark.parametrize('palette, expected', [
    (None, [BLUE, ORANGE, GREEN]),
    ([[9, 99, 199], [99, 2, 3], [4, 5, 99]], [(9, 99, 199), (99, 2, 3),
                                              (4, 5, 99)]),
])
def test_classes_have_colours_of_their_own(palette, expected, tool, tmp_path):
    data = data_cfg(tmp_path / 'data')
    if palette:
        data['metainfo']['palette'] = palette
    network = tool.find(str(detector(tmp_path / 'work', data)))
    dataset, = tool.datasets_of([network])
    assert tool.metainfo_of(dataset, data)['palette'] == expected
    truth = next(tool.columns([network], 2, 0.3, 'cpu'))
    for image, color in zip(truth.images, expected):
        assert has(image, color)
        assert not any(
            has(image, other) for other in expected if other != color)


@detects
def test_there_is_a_colour_for_any_class(tool, tmp_path):
    data = data_cfg(tmp_path / 'data')
    data['metainfo']['classes'] = [*map(str, range(50))]
    network = tool.find(str(detector(tmp_path / 'work', data)))
    dataset, = tool.datasets_of([network])
    palette = tool.metainfo_of(dataset, data)['palette']
    assert len(palette) == 50
    assert len({*palette[:20]}) == 20


@detects
@pytest.mark.parametrize('scores', [(0.9, 0.4), (0.4, 0.9)])
def test_the_best_box_is_seen(tool, scores):
    from mmdet.structures import DetDataSample
    init_default_scope('mmdet')
    cfg = Config(dict(default_scope='mmdet', visualizer=VISUALIZER))
    drawer = tool.Drawer(cfg, dict(classes=['a', 'b'], palette=[BLUE, ORANGE]),
                         0.3)
    sample = DetDataSample(
        pred_instances=InstanceData(
            bboxes=torch.tensor(2 * [[100., 80., 400., 300.]]),
            labels=torch.tensor([0, 1]),
            scores=torch.tensor(scores)))
    image = drawer(np.full((360, 480, 3), 255, np.uint8), sample, truth=False)
    best, other = (BLUE, ORANGE)[::1 if scores[0] > scores[1] else -1]
    # The left edge, below the label.
    edge = image[200, 95:106].astype(int)
    line = edge[edge.sum(-1).argmin()]
    assert abs(line - best).sum() < abs(line - other).sum()


@detects
def test_labels_are_legible_on_images_of_any_size(tool):
    from mmdet.structures import DetDataSample
    init_default_scope('mmdet')
    cfg = Config(dict(default_scope='mmdet', visualizer=VISUALIZER))
    drawer = tool.Drawer(cfg, dict(classes=['a'], palette=[BLUE]), 0.3)
    heights = []
    for width in (60, 240, 480, 800, 2000):
        box = torch.tensor([[0.2, 0.2, 0.22, 0.22]]) * width
        sample = DetDataSample(
            gt_instances=InstanceData(
                bboxes=box, labels=torch.zeros(1, dtype=torch.long)))
        image = np.full((width, width, 3), 255, np.uint8)
        drawn = drawer(image, sample, truth=True)
        assert len(drawn) % width == 0
        # A label is light on black.
        dark = (drawn.max(-1) < 60).any(1)
        heights.append(dark.sum() / len(dark))
    assert min(heights) > 1 / 40
    assert max(heights) < 1.2 * min(heights)


@pytest.mark.parametrize('name, args, complaint', [
    ('picture.bmpp', [], r'bmpp cannot be .*\.jpg, .*\.png'),
    ('picture', [], r'picture cannot be .*\.jpg, .*\.png'),
    ('picture.png', ['--score-thr', '3'], '3 is not .* from 0 to below 1'),
    ('picture.png', ['--score-thr', '1'], '1 is not .* from 0 to below 1'),
    ('picture.png', ['--score-thr', '-0.1'], '-0.1 is not .* from 0 to below'),
    ('picture.png', ['--score-thr', 'nan'], 'nan is not .* from 0 to below 1'),
])
def test_wrong_arguments_are_refused(name, args, complaint, tmp_path):
    # Before any work: what is missing is not even looked for.
    done = run_tool(TOOL, 'nowhere', '--out', tmp_path / name, *args)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr), done.stderr
    assert os.listdir(tmp_path) == []


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
    ("default_scope = 'mmdet'", 'epoch_1.pth', 'has no test_dataloader'),
    ('a = (', 'epoch_1.pth', 'cannot be read as a config'),
    ("default_scope = 'mmdet'\ntest_dataloader = dict()", 'epoch_1.pth',
     'result.json is not what tools/transfer.sh writes'),
])
def test_a_wrong_work_directory_is_refused(config, checkpoint, complaint,
                                           tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    if config:
        (work_dir / 'config.py').write_text(config)
    if checkpoint:
        (work_dir / checkpoint).write_bytes(b'')
    (work_dir / 'result.json').write_text('[]')
    done = run_tool(TOOL, work_dir, '--out', tmp_path / 'picture.png')
    assert done.returncode == 2
    assert re.search(complaint, done.stderr), done.stderr
    assert os.listdir(tmp_path) == ['work']


def test_a_work_directory_that_is_missing_is_refused(tmp_path):
    done = run_tool(TOOL, tmp_path / 'nowhere', '--out',
                    tmp_path / 'picture.png')
    assert done.returncode == 2
    assert 'nowhere' in done.stderr
