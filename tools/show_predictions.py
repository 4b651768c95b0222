#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Draw what fine-tuned networks predict, side by side, beside the truth."""
import argparse
import glob
import os
import re
import sys
import tempfile
import textwrap
import warnings
from itertools import cycle, islice
from typing import Iterator, List, NamedTuple

import mmcv
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, VISUALIZERS, init_default_scope
from mmengine.structures import BaseDataElement, PixelData
from mmengine.utils import import_modules_from_strings
from mmengine.visualization import Visualizer

from dspnet_mm.checkpoint import load_checkpoint, load_every_tensor
from dspnet_mm.cli import add_options, run
from dspnet_mm.device import check_device
from dspnet_mm.errors import InputError
from dspnet_mm.files import RESULT, read_json, whole_file
from dspnet_mm.plots import check_picture
from dspnet_mm.slimming import read_config

# Toolboxes write and draw lines in sizes that suit images of this longer side.
_LEGIBLE = 480
# Of an image of that longer side. MMDetection's labels have 6 to 13 points.
_DPI = 144
_TOOLBOXES = ('mmdet', 'mmseg')


class Trained(NamedTuple):
    """What a work directory holds.

    Args:
        name (str): What to call it.
        cfg (Config): What was trained.
        checkpoint (str): Its last checkpoint.
    """
    name: str
    cfg: Config
    checkpoint: str

    @property
    def folder(self) -> str:
        """The work directory, as it was given."""
        return os.path.dirname(self.checkpoint)


class Column(NamedTuple):
    """What stands one below the other.

    Args:
        title (str): What stands above.
        images (List[ndarray]): RGB, each of shape (H, W, 3).
        scores (List[float]): Of a detector's best box on each image, 0 where
            it has none. Empty for all else.
    """
    title: str
    images: List[np.ndarray]
    scores: List[float]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='of detectors or segmentors that were trained on the same data, '
        'one for each column: as mim train leaves it, with the config and a '
        'checkpoint')
    parser.add_argument(
        '--out', required=True, metavar='PICTURE.png', help='where it goes')
    parser.add_argument(
        '--images',
        type=int,
        default=3,
        metavar='N',
        help='how many test images, evenly spread (default: %(default)s)')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='S',
        help='boxes with a lower score are left out (default: %(default)s)')
    add_options(parser, 'device')
    args = parser.parse_args()
    if args.images < 1:
        parser.error('--images takes a number of at least 1')
    return args


def find(work_dir: str) -> Trained:
    """Config and last checkpoint of a work directory."""
    configs = glob.glob(os.path.join(glob.escape(work_dir), '*.py'))
    if len(configs) != 1:
        raise InputError(f'{work_dir} holds {len(configs)} configs: give a '
                         'work directory that mim train made, with one')
    steps = {
        int(match.group(1)): match.group()
        for match in map(
            re.compile(r'(?:epoch|iter)_(\d+)\.pth').fullmatch,
            os.listdir(work_dir)) if match
    }
    if not steps:
        raise InputError(f'{work_dir} holds no checkpoint (epoch_N.pth or '
                         'iter_N.pth): train to the first one')
    cfg = read_config(configs[0])
    if cfg.get('default_scope') not in _TOOLBOXES:
        raise InputError(f'{configs[0]} is for {cfg.get("default_scope")}: '
                         f'give one for {" or ".join(_TOOLBOXES)}')
    if 'test_dataloader' not in cfg:
        raise InputError(f'{configs[0]} has no test_dataloader, whose images '
                         'would be shown: give another')
    name = os.path.basename(os.path.abspath(work_dir))
    result = os.path.join(work_dir, RESULT)
    if os.path.exists(result):
        # tools/transfer.sh wrote it, and the folder's name is long.
        try:
            row = read_json(result)
            name = f'{row["subnet"]}, {row["init"]}, seed {row["seed"]}'
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f'{result} is not what tools/transfer.sh writes '
                             f'({error}): remove it')
    return Trained(name, cfg, os.path.join(work_dir, steps[max(steps)]))


def told_apart(networks: List[Trained]) -> List[Trained]:
    """The same networks; where names are equal, folders are added to them."""
    named = []
    for network in networks:
        alike = [
            os.path.abspath(other.folder) for other in networks
            if other.name == network.name
        ]
        folder = os.path.abspath(network.folder)
        if alike.count(folder) > 1:
            raise InputError(f'{network.folder} is given twice: give each '
                             'work directory once')
        if len(alike) > 1:
            # Folders' names may be equal, too: begin where they differ.
            start = os.path.commonpath([*map(os.path.dirname, alike)])
            network = network._replace(
                name=f'{network.name} ({os.path.relpath(folder, start)})')
        named.append(network)
    return named


def datasets_of(networks: List[Trained]) -> List[BaseDataset]:
    """What each network is tested on: the same images, read its own way.

    Raises:
        InputError: If there are two with other images, or other classes.
    """

    def content(dataset: BaseDataset) -> tuple:
        return list(dataset.metainfo['classes']), [
            os.path.realpath(dataset.get_data_info(index)['img_path'])
            for index in range(len(dataset))
        ]

    first, *others = networks
    datasets = [DATASETS.build(first.cfg.test_dataloader.dataset)]
    for other in others:
        cfg = other.cfg.test_dataloader.dataset
        if cfg == first.cfg.test_dataloader.dataset:
            # Annotations may take a while to read.
            datasets.append(datasets[0])
            continue
        datasets.append(DATASETS.build(cfg))
        if content(datasets[-1]) != content(datasets[0]):
            raise InputError(
                f'{first.folder} and {other.folder} are of different data, '
                'and all columns must be of the same test images and classes: '
                'give work directories of one data set')
    return datasets


def metainfo_of(dataset: BaseDataset, cfg: dict) -> dict:
    """The data's metainfo, with a palette that suits the classes.

    Args:
        dataset (BaseDataset): The data.
        cfg (dict): What it was built from.
    """
    metainfo = dataset.metainfo
    given = cfg.get('metainfo') or {}
    of_others = 'classes' in given and 'palette' not in given
    if of_others or 'palette' not in metainfo:
        # Toolboxes take random colours, or those of other classes, which may
        # be much alike. The first ten of these are the strong ones.
        colors = (255 *
                  np.array(colormaps['tab20'].colors)).round().astype(int)
        colors = [*colors[::2].tolist(), *colors[1::2].tolist()]
        metainfo['palette'] = islice(cycle(colors), len(metainfo['classes']))
    # MMDetection takes no lists for colours.
    metainfo['palette'] = [tuple(color) for color in metainfo['palette']]
    return metainfo


def load(trained: Trained, device: str) -> torch.nn.Module:
    """The trained network, in evaluation mode."""
    cfg = trained.cfg.copy()
    # All weights come from the checkpoint.
    cfg.model.backbone.pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_every_tensor(model,
                      load_checkpoint(trained.checkpoint)['state_dict'],
                      f'{trained.checkpoint} does not fit its config',
                      'Give a work directory as the training left it')
    return model.to(device).eval()


def enlarged(image: np.ndarray, sample: BaseDataElement, factor: int):
    """An image and what is known of it, each pixel ``factor`` times as wide.

    Args:
        image (ndarray): Of shape (H, W, 3).
        sample (BaseDataElement): A toolbox's data sample.
        factor (int): At least 1.
    """

    def widened(maps: torch.Tensor) -> torch.Tensor:
        maps = maps.repeat_interleave(factor, dim=-2)
        return maps.repeat_interleave(factor, dim=-1)

    sample = sample.cpu()
    for instances in (sample.get('gt_instances'),
                      sample.get('pred_instances')):
        if instances is None:
            continue
        boxes = instances.bboxes
        instances.bboxes = getattr(boxes, 'tensor', boxes) * factor
        masks = instances.get('masks')
        if isinstance(masks, torch.Tensor):
            instances.masks = widened(masks)
        elif masks is not None:
            height, width = image.shape[:2]
            instances.masks = masks.resize((height * factor, width * factor))
    for key in ('gt_sem_seg', 'pred_sem_seg'):
        if key in sample:
            labels = widened(sample.get(key).data)
            sample.set_data({key: PixelData(data=labels)})
    return image.repeat(factor, 0).repeat(factor, 1), sample


class Drawer:
    """Draws with a toolbox's own visualizer.

    Args:
        cfg (Config): Names the visualizer.
        metainfo (dict): The data's classes and palette.
        score_thr (float): The lowest score of what is drawn.
    """

    def __init__(self, cfg: Config, metainfo: dict, score_thr: float) -> None:
        self._visualizer: Visualizer = VISUALIZERS.build(
            dict(cfg.visualizer, vis_backends=[]))
        self._visualizer.dataset_meta = metainfo
        self._options = {}
        if cfg.default_scope == 'mmdet':
            self._options['pred_score_thr'] = score_thr

    def __call__(self, image: np.ndarray, sample: BaseDataElement,
                 truth: bool) -> np.ndarray:
        """Draw.

        Args:
            image (ndarray): RGB, of shape (H, W, 3).
            sample (BaseDataElement): What is known and was predicted.
            truth (bool): Whether to draw what is known, or the prediction.

        Returns:
            ndarray: RGB, of the same shape or larger.
        """
        factor = max(1, round(_LEGIBLE / max(image.shape[:2])))
        image, sample = enlarged(image, sample, factor)
        if 'pred_instances' in sample:
            # What is drawn last covers the others: the best.
            found = sample.pred_instances
            sample.pred_instances = found[found.scores.argsort()]
        # Text and lines are measured in points: so they take up the same part
        # of every image.
        dpi = _DPI * max(image.shape[:2]) / _LEGIBLE
        self._visualizer.dpi = dpi
        self._visualizer.fig_save.set_dpi(dpi)
        with tempfile.TemporaryDirectory() as folder, \
                warnings.catch_warnings():
            path = os.path.join(folder, 'drawn.png')
            # MMEngine warns of any box, a polygon to it, that ends at an
            # image's border, where it should end.
            warnings.filterwarnings(
                'ignore', r'Warning: The (bbox|polygon) is out of bounds')
            self._visualizer.add_datasample(
                'drawn',
                image,
                sample,
                draw_gt=truth,
                draw_pred=not truth,
                out_file=path,
                **self._options)
            return mmcv.imread(path, channel_order='rgb')


def columns(networks: List[Trained], number: int, score_thr: float,
            device: str) -> Iterator[Column]:
    """First the truth, then each network's predictions."""
    datasets = datasets_of(networks)
    truth = datasets[0]
    cfg = networks[0].cfg
    drawer = Drawer(cfg, metainfo_of(truth, cfg.test_dataloader.dataset),
                    score_thr)
    number = min(number, len(truth))
    chosen = [index * len(truth) // number for index in range(number)]
    images = [
        mmcv.imread(
            truth.get_data_info(index)['img_path'], channel_order='rgb')
        for index in chosen
    ]
    yield Column('ground truth', [
        drawer(image, truth[index]['data_samples'], truth=True)
        for image, index in zip(images, chosen)
    ], [])
    for network, dataset in zip(networks, datasets):
        print(network.name, flush=True)
        model = load(network, device)
        column = Column(network.name, [], [])
        for image, index in zip(images, chosen):
            with torch.no_grad():
                sample, = model.test_step(pseudo_collate([dataset[index]]))
            column.images.append(drawer(image, sample, truth=False))
            if 'pred_instances' in sample:
                scores = sample.pred_instances.scores.tolist()
                column.scores.append(max(scores, default=0))
        yield column


def main() -> None:
    args = parse_args()
    if not 0 <= args.score_thr < 1:
        raise InputError(f'--score-thr {args.score_thr:g} is not allowed: '
                         'give a number from 0 to below 1')
    check_picture(args.out)
    check_device(args.device)
    networks = told_apart([find(work_dir) for work_dir in args.work_dirs])
    scopes = {network.cfg.default_scope for network in networks}
    if len(scopes) > 1:
        raise InputError('detectors and segmentors do not go into one '
                         'picture: give work directories of one kind')
    init_default_scope(scopes.pop())
    for network in networks:
        import_modules_from_strings(
            **network.cfg.get('custom_imports', dict(imports=[])))
    drawn = [*columns(networks, args.images, args.score_thr, args.device)]
    rows = len(drawn[0].images)
    height, width = drawn[0].images[0].shape[:2]
    figure = Figure(
        figsize=(4 * len(drawn), 4 * rows * height / width + 0.5),
        layout='constrained')
    axes = figure.subplots(rows, len(drawn), squeeze=False)
    for row, line in enumerate(axes):
        for axis, column in zip(line, drawn):
            axis.imshow(column.images[row])
            axis.set_axis_off()
            if row == 0:
                # What is as wide as a column.
                axis.set_title(
                    textwrap.fill(column.title, 40, break_on_hyphens=False))
    with whole_file(args.out) as temporary:
        figure.savefig(temporary, dpi=150)
    print(f'picture: {args.out}')
    for column in drawn:
        weak = [score for score in column.scores if score <= args.score_thr]
        if weak:
            advice = '; a lower --score-thr shows weaker ones'
            print(
                f'{column.title}: no box with a score above '
                f'{args.score_thr:g} on {len(weak)} of {rows} images'
                f'{advice if max(weak) > 0 else ""}',
                file=sys.stderr)


if __name__ == '__main__':
    run(main)
