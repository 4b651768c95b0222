#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Fine-tune exported networks with the stock toolboxes, and compare inits."""
import argparse
import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from typing import Any, Dict, List, NamedTuple, Tuple, Union
from unittest import mock

# Here, since it makes a folder in HOME when it is first imported, and fails
# where another process is about to: its processes that train find it.
import mim  # noqa: F401
import torch
from mmengine.config import Config

import dspnet_mm  # noqa: F401
from dspnet_mm.checkpoint import sha256_of
from dspnet_mm.cli import command_line, markdown_table, run
from dspnet_mm.errors import InputError, VerificationError
from dspnet_mm.files import check_writable, kept_result, write_json
from dspnet_mm.means import mean_and_error
from dspnet_mm.slimming import find_plain_files, load_plain, read_config
from dspnet_mm.versions import merged_versions, versions

TOOLS = os.path.dirname(os.path.abspath(__file__))
CONFIGS = os.path.join(os.path.dirname(TOOLS), 'configs', 'benchmarks')
TASKS = {
    'digits-det': 'mmdetection/digits/retinanet_slimmed_fpn_1xb8-6e_digits.py',
    'digits-seg': 'mmsegmentation/digits/fcn_slimmed_1xb8-6e_digits.py',
    'bccd': 'mmdetection/bccd/retinanet_slimmed_fpn_1xb8-6e_bccd.py',
    'camvid': 'mmsegmentation/camvid/fpn_slimmed_1xb8-6e_camvid.py',
}
INITS = dict(
    slimmed='slimmed', random='random weights', one_by_one='one by one')
# The first of these that a validation gives.
METRICS = ('coco/bbox_mAP', 'pascal_voc/mAP', 'mIoU', 'accuracy/top1')


class Job(NamedTuple):
    """A fine-tuning.

    Args:
        subnet (str): The network's name.
        init (str): A key of ``INITS``.
        seed (int): The seed.
        export (str): The network's file.
        config (str): What to train.
    """
    subnet: str
    init: str
    seed: int
    export: str
    config: str

    @property
    def name(self) -> str:
        """What it is called."""
        return f'{self.subnet}-{self.init}-seed{self.seed}'

    @property
    def environment(self) -> Dict[str, str]:
        """What its config takes from the environment."""
        init = 'random' if self.init == 'random' else 'slimmed'
        return dict(EXPORT=os.path.abspath(self.export), INIT=init)

    def read(self) -> Config:
        """The config as its training will read it; not for threads."""
        with mock.patch.dict(os.environ, self.environment):
            return read_config(self.config)

    def folder(self, cfg: Config) -> str:
        """A name that no other training has."""
        # A network of the same name may be another one today, and so may
        # the data.
        everything = ''.join((sha256_of(self.export), cfg.pretty_text,
                              *map(state_of, data_roots(cfg))))
        digest = hashlib.sha256(everything.encode()).hexdigest()
        return f'{self.name}-{digest[:12]}'


def data_roots(cfg: Any) -> List[str]:
    """The folders that a config's images and labels lie in."""
    if isinstance(cfg, (list, tuple)):
        return [root for each in cfg for root in data_roots(each)]
    if not isinstance(cfg, dict):
        return []
    found = [cfg['data_root']] if isinstance(cfg.get('data_root'), str) else []
    return sorted({*found, *data_roots([*cfg.values()])})


@lru_cache(maxsize=None)
def state_of(folder: str) -> str:
    """The names, sizes and times of all files in a folder, as a digest."""
    digest = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            # A link may lead nowhere.
            if os.path.exists(path):
                state = os.stat(path)
                digest.update(
                    f'{path} {state.st_size} {state.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'task',
        help=f'one of {", ".join(TASKS)}, or a config that takes its network '
        'from EXPORT, as those in configs/benchmarks do')
    parser.add_argument('exports', help='the folder of exported networks')
    parser.add_argument(
        'subnets',
        nargs='*',
        # Without it, a usage error lists them among what is required.
        default=[],
        metavar='DN',
        help='which (default: all)')
    parser.add_argument(
        '--seeds',
        type=int,
        default=1,
        metavar='N',
        help='how many trainings of each (default: %(default)s)')
    parser.add_argument(
        '--one-by-one',
        metavar='DIR',
        help='a folder of the same networks, pre-trained alone and exported, '
        'to start from as well')
    parser.add_argument(
        '--data',
        metavar='DIR',
        help="the data's folder (default: what the config says)")
    parser.add_argument(
        '--processes',
        type=int,
        default=1 if torch.cuda.is_available() else os.cpu_count(),
        metavar='N',
        help='trainings at a time (default: one for each core; 1 on a GPU)')
    parser.add_argument(
        '--out',
        default='work_dirs/transfer',
        metavar='DIR',
        help='where the report goes and each finished training is kept: the '
        'same command goes on where it was stopped (default: %(default)s)')
    args = parser.parse_args()
    for name in ('seeds', 'processes'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} takes a number of at least 1')
    return args


def find_config(task: str) -> Tuple[str, str]:
    """The name and the config of a task."""
    if task in TASKS:
        return task, os.path.join(CONFIGS, TASKS[task])
    if os.path.isfile(task):
        return os.path.splitext(os.path.basename(task))[0], task
    raise InputError(f'task {task} does not exist: choose from '
                     f'{", ".join(TASKS)}, or give a config')


def find_exports(folder: str, subnets: List[str]) -> Dict[str, str]:
    """The networks' files in a folder, by name."""
    found = {
        os.path.splitext(os.path.basename(path))[0]: path
        for path in find_plain_files([folder])
    }
    missing = [name for name in subnets if name not in found]
    if missing:
        raise InputError(f'{folder} holds no {missing[0]}: choose from '
                         f'{", ".join(found)}')
    return {name: found[name] for name in subnets or found}


def run_job(job: Job, toolbox: str, folder: str) -> dict:
    """Fine-tune in a process of its own, unless that is done already.

    Args:
        job (Job): What to train.
        toolbox (str): By which toolbox, e.g. 'mmdet'.
        folder (str): The work directory.

    Returns:
        dict: What ``result.json`` in the folder holds: a row of the report,
        and ``versions``.
    """

    def work() -> dict:
        # What was interrupted begins anew: its seconds are to be all of them.
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        seconds = fine_tune(job, toolbox, folder)
        metric, value = last_metric(folder)
        return dict(
            subnet=job.subnet,
            init=job.init,
            seed=job.seed,
            metric=metric,
            value=value,
            seconds=seconds,
            versions=versions())

    return kept_result(folder, work)


def fine_tune(job: Job, toolbox: str, folder: str) -> float:
    """Train in a process of its own, and give its CPU seconds."""
    log = os.path.join(folder, 'log.txt')
    command = [
        sys.executable, '-m', 'mim', 'train', toolbox, job.config,
        '--work-dir', folder, '--cfg-options', f'randomness.seed={job.seed}'
    ]
    with open(log, 'w') as file:
        process = subprocess.Popen(
            command,
            env=dict(os.environ, **job.environment),
            stdout=file,
            stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    if status:
        raise VerificationError(f'{job.name} failed: {last_error(log)} (all '
                                f'of it: {log}); the same command goes on '
                                'with what is missing')
    return usage.ru_utime + usage.ru_stime


def last_error(log: str) -> str:
    """The line of a training's log that says why it failed."""
    with open(log, errors='replace') as file:
        lines = file.read().splitlines()
    # mim's own complaint, that its process failed, comes after it.
    found = [
        line for line in lines if re.match(r'[\w.]*(Error|Exception)\b', line)
        and 'CalledProcessError' not in line
    ]
    return found[-1] if found else 'it does not say why'


def last_metric(folder: str) -> Tuple[str, float]:
    """What the last validation of a work directory gave."""
    paths = glob.glob(os.path.join(folder, '*', 'vis_data', 'scalars.json'))
    found = {}
    for path in paths:
        with open(path) as file:
            for line in file:
                values = json.loads(line)
                found.update({
                    metric: values[metric]
                    for metric in METRICS if metric in values
                })
    for metric in METRICS:
        if metric in found:
            return metric, found[metric]
    raise VerificationError(f'the validation in {folder} gives none of '
                            f'{", ".join(METRICS)}')


def statistic(values: List[float]) -> Union[float, Dict[str, float]]:
    """A value, or the mean of several and its standard error."""
    if len(values) == 1:
        return values[0]
    return mean_and_error(values)


def summary_of(rows: List[dict], metas: Dict[str, dict]) -> List[dict]:
    """For each network what each init comes to, and the seconds of each."""
    inits = [
        init for init in INITS if any(row['init'] == init for row in rows)
    ]
    lines = []
    for name, meta in metas.items():
        line = dict(
            subnet=name,
            params=meta['params'],
            flops=meta['flops'],
            metric=rows[0]['metric'])
        for prefix, key in (('', 'value'), ('seconds_', 'seconds')):
            for init in inits:
                line[prefix + init] = statistic([
                    row[key] for row in rows
                    if (row['subnet'], row['init']) == (name, init)
                ])
        lines.append(line)
    return lines


def shown(value: Any, form: str) -> str:
    """A statistic as text."""
    if isinstance(value, dict):
        return f'{value["mean"]:{form}} ± {value["se"]:{form}}'
    return f'{value:{form}}'


def table(summary: List[dict]) -> str:
    """The summary in Markdown."""
    columns = [('subnet', 'sub-network', ''), ('params', 'params', ','),
               ('flops', 'FLOPs', ',')]
    columns += [(init, f'{summary[0]["metric"]}, {title}', '.3f')
                for init, title in INITS.items()]
    columns += [(f'seconds_{init}', f'CPU seconds, {title}', '.0f')
                for init, title in INITS.items()]
    columns = [column for column in columns if column[0] in summary[0]]
    return markdown_table(
        [title for _, title, _ in columns],
        [[shown(line[key], form) for key, _, form in columns]
         for line in summary])


def prepare_data(task: str, data: str) -> None:
    """See that a task's data are there; scenes of digits are made."""
    # Not in a place of the user's own, which may be mistyped.
    if task.startswith('digits') and 'DATA_ROOT' not in os.environ:
        if os.path.exists(data):
            return
        subprocess.run([
            sys.executable,
            os.path.join(TOOLS, 'dataset', 'make_digit_scenes.py'), '--out',
            data
        ],
                       check=True)
    elif not os.path.isdir(data):
        raise InputError(f'{data} is not a folder: get the data of {task} as '
                         'configs/benchmarks/README.md says, or give another '
                         'folder by --data')


def check_takes_export(job: Job, cfg: Config) -> None:
    """Refuse a config that trains something else."""
    backbone = cfg.get('model', {}).get('backbone', {})
    if (backbone.get('init_cfg') or {}).get('type') != 'SlimmedInit':
        raise InputError(f'{job.config} does not fine-tune one network, that '
                         'of EXPORT: give a config that does, as most in '
                         'configs/benchmarks do')


def main() -> None:
    args = parse_args()
    task, config = find_config(args.task)
    exports = {'slimmed': find_exports(args.exports, args.subnets)}
    names = list(exports['slimmed'])
    exports['random'] = exports['slimmed']
    if args.one_by_one:
        exports['one_by_one'] = find_exports(args.one_by_one, names)
    report_path = os.path.join(args.out, f'transfer_{task}.json')
    check_writable(report_path)
    if args.data:
        os.environ['DATA_ROOT'] = args.data
    jobs = [
        Job(name, init, seed, files[name], config)
        for seed in range(args.seeds) for name in names
        for init, files in exports.items()
    ]
    cfgs = [job.read() for job in jobs]
    check_takes_export(jobs[0], cfgs[0])
    if task in TASKS:
        prepare_data(task, cfgs[0].data_root)
    elif args.data and not os.path.isdir(args.data):
        raise InputError(f'--data {args.data} is not a folder: give the one '
                         'that holds the data')
    folders = [
        os.path.join(args.out, task, job.folder(cfg))
        for job, cfg in zip(jobs, cfgs)
    ]
    with ThreadPoolExecutor(args.processes) as pool:
        futures = [
            pool.submit(run_job, job, cfg.default_scope, folder)
            for job, cfg, folder in zip(jobs, cfgs, folders)
        ]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                row = future.result()
                print(
                    f'[{number}/{len(jobs)}] {row["subnet"]}, '
                    f'{INITS[row["init"]]}, seed {row["seed"]}: '
                    f'{row["metric"]} {row["value"]:.3f} in '
                    f'{row["seconds"]:.0f} CPU seconds',
                    flush=True)
        finally:
            for future in futures:
                future.cancel()
    rows = [dict(task=task, **future.result()) for future in futures]
    trained_with = merged_versions([row.pop('versions') for row in rows])
    summary = summary_of(rows, {
        name: load_plain(path).meta
        for name, path in exports['slimmed'].items()
    })
    report = dict(
        rows=rows,
        summary=summary,
        versions=trained_with,
        command=command_line(__file__))
    write_json(report_path, report)
    print(table(summary))
    if cfgs[0].default_scope in ('mmdet', 'mmseg'):
        first = [
            folder for job, folder in zip(jobs, folders)
            if (job.init, job.seed) == ('slimmed', 0)
        ]
        picture = f'{os.path.splitext(report_path)[0]}.png'
        print('see what they predict: python tools/show_predictions.py '
              f'{shlex.join(first)} --out {shlex.quote(picture)}')
    print(f'report: {report_path}')


if __name__ == '__main__':
    run(main)
