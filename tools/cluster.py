#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Cluster images by a trained network's features, for SDR."""
import argparse
import os

import numpy as np
from mmengine.config import Config
from mmselfsup.registry import DATASETS

from dspnet_mm.checkpoint import check_exists
from dspnet_mm.cli import add_options, command_line, markdown_table, run
from dspnet_mm.clustering import (backbone_of, cluster_tree, draw_clusters,
                                  image_features, remove_features)
from dspnet_mm.datasets import write_clusters
from dspnet_mm.datasets.clusters import check_names, check_sizes
from dspnet_mm.device import check_device
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation import ImageFormat, evaluation_dataset
from dspnet_mm.files import check_writable, whole_file, write_json
from dspnet_mm.slimming import load_config, load_supernet
from dspnet_mm.versions import versions


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the training config')
    parser.add_argument('checkpoint', help='the training checkpoint')
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE.csv',
        help='the cluster list to write; sizes are written to FILE.json, a '
        'picture of some clusters to FILE.png')
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help="the images (default: the config's training images)")
    parser.add_argument(
        '--clusters',
        type=int,
        metavar='N',
        help="how many clusters (default: as the config's family has)")
    parser.add_argument(
        '--groups',
        type=int,
        metavar='N',
        help='into how many each branch of the tree of clusters divides '
        "(default: as the config's family has)")
    parser.add_argument(
        '--plain',
        action='store_true',
        help='let k-means decide how large clusters are, instead of making '
        "them of one size (default: as the config's ClusterHook has it)")
    parser.add_argument(
        '--workers',
        type=int,
        default=0,
        metavar='N',
        help='how many processes load images; 0 loads them in this one '
        '(default: %(default)s)')
    add_options(parser, 'seed', 'device', 'force', 'cfg-options')
    args = parser.parse_args()
    if not args.out.endswith('.csv'):
        parser.error(f'--out {args.out} is no name of a .csv file')
    if args.workers < 0:
        parser.error('--workers takes a number of at least 0')
    return args


def levels_of(clusters: int, groups: int) -> int:
    """How often images are divided.

    Raises:
        InputError: If the clusters make no tree of such branches.
    """
    levels = 1
    while groups > 1 and groups**levels < clusters:
        levels += 1
    if groups < 2 or groups**levels != clusters:
        raise InputError(
            f'{clusters} clusters cannot come of branches that divide into '
            f'{groups}: give --groups of at least 2 and as --clusters a power '
            f'of it, e.g. --groups {max(2, clusters)} --clusters '
            f'{max(2, clusters)}')
    return levels


def is_balanced(cfg: Config, plain: bool) -> bool:
    """Whether clusters are of one size: as in training, if not said."""
    return not plain and all(
        hook.get('balanced', True) for hook in cfg.get('custom_hooks', [])
        if hook['type'] == 'ClusterHook')


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    check_exists(args.checkpoint)
    stem = args.out[:-len('.csv')]
    for suffix in ('csv', 'json', 'png'):
        path = f'{stem}.{suffix}'
        check_writable(path)
        if os.path.exists(path) and not args.force:
            raise InputError(f'{path} exists: give another name, or --force '
                             'to replace it')
    check_device(args.device)
    model = load_supernet(cfg, args.checkpoint)
    asked = {}
    for name in ('clusters', 'groups'):
        known = getattr(model.family, f'num_{name}', None)
        asked[name] = known if getattr(args, name) is None else getattr(
            args, name)
        if asked[name] is None:
            raise InputError(f"{args.config}'s family has no groups of "
                             'channels: give --clusters and --groups')
    levels = levels_of(**asked)
    images = dict(cfg.train_dataloader.dataset)
    if args.data:
        images = dict(type='ImageFolder', data_root=args.data)
    named = DATASETS.build(dict(images, pipeline=[]))
    check_names(named)
    dataset = evaluation_dataset(images, model.family.input_size)
    image_format = ImageFormat.from_config(
        cfg.model.get('data_preprocessor'), model.family.input_size)
    if len(dataset) < asked['clusters']:
        raise InputError(f'{len(dataset)} images cannot make '
                         f'{asked["clusters"]} clusters: give more images, or '
                         'fewer --clusters')
    features_path = f'{stem}.features.npy'
    os.makedirs(os.path.dirname(os.path.abspath(stem)), exist_ok=True)
    features = image_features(
        backbone_of(model).to(args.device),
        dataset,
        image_format,
        features_path,
        num_workers=args.workers)
    print(f'dividing them {levels} times into {asked["groups"]}', flush=True)
    balanced = is_balanced(cfg, args.plain)
    clusters = cluster_tree(features, asked['groups'], levels, balanced,
                            args.seed)
    check_sizes(clusters, asked['clusters'], 'k-means')
    sizes = np.bincount(clusters)
    write_json(
        f'{stem}.json',
        dict(
            **asked,
            images=len(clusters),
            sizes=sizes.tolist(),
            balanced=balanced,
            seeds=[args.seed],
            versions=versions(),
            command=command_line(__file__)))
    with whole_file(f'{stem}.png') as path:
        draw_clusters(dataset, clusters, args.seed).savefig(path, dpi=100)
    write_clusters(args.out, named, clusters)
    remove_features(features_path)
    print(
        markdown_table(
            ('clusters', 'images', 'smallest', 'median', 'largest'), [[
                str(value)
                for value in (asked['clusters'], len(clusters), sizes.min(),
                              int(np.median(sizes)), sizes.max())
            ]]))
    print(f'clusters: {args.out}, sizes: {stem}.json, picture: {stem}.png')


if __name__ == '__main__':
    run(main)
