#!/usr/bin/env python
# Copyright (c) The dspnet_mm authors. All rights reserved.
"""Measure what single ideas change in a supernet's desired networks.

Each idea is the shipped config and what it changes. It is compared with the
config as it is, on the same seeds, learning rate and momentum, and has a JSON
of its own. The desired networks are those of DSPNet's config, for all methods.
"""
import argparse
import json
import os
from typing import Any, Dict, List

from methods import read, trained_on
from once_vs_one_by_one import (OWN_DNS, SUPERNET, Costs, Outcome, Setting,
                                Sides, check_earlier, figures_of,
                                gains_by_network, parse_args, report_name,
                                run_all)
from result_tables import results_table
from trials import (COST_EPOCHS, METRICS, Idea, Job, check_images,
                    measure_costs, report_stem, trained_with, workers)

from dspnet_mm.cli import command_line, run
from dspnet_mm.errors import InputError
from dspnet_mm.evaluation.report import METHODS
from dspnet_mm.files import check_writable, read_json, write_json


def sandwich(**kwargs) -> dict:
    """The shipped sampler of the grown supernet."""
    return dict(
        type='SandwichSampler', num_random=2, desired_prob=1.0, **kwargs)


def phases(*samplers: dict) -> Dict[str, Any]:
    """Samplers that follow on one another, each with ``until``."""
    return {
        'model.sampler':
        dict(_delete_=True, type='PhasedSampler', phases=list(samplers))
    }


def grown(then: dict, start: str = 'shallowest', until: float = 0.5) -> dict:
    """One network alone at first, then what a sampler draws."""
    return phases(
        dict(type='FixedSampler', name=start, until=until),
        dict(then, until=1))


def target(start: str, until: float) -> Dict[str, Any]:
    """A smaller target network, until a part of the training is done."""
    return {
        'model.target':
        [dict(subnet=start, until=until),
         dict(subnet='largest', until=1)]
    }


_AT_RANDOM = {'model.grow_from': None}
_ALL_AT_ONCE = {'model.target': 'largest', **_AT_RANDOM}
_NO_GROWTH = {
    'model.sampler': dict(_delete_=True, **sandwich()),
    **_ALL_AT_ONCE
}
# What draws sub-networks once the supernet has grown.
_GROWN = 'model.sampler.phases.1'
_STEP_ONCE = {'model.step_each_subnet': False}


def growing_range() -> dict:
    """Four equal phases, each with one more of the desired networks."""
    names = ('large', 'medium', 'small', 'tiny')
    samplers = [
        sandwich(smallest=name, until=(index + 1) / len(names))
        for index, name in enumerate(names)
    ]
    return {**phases(*samplers), **_ALL_AT_ONCE}


_NOT_OF_DIGITS = {
    'per-image-views': 'reads images from files, which the digits are not',
    'begin-at-random': 'is how all networks begin with the digits'
}
_PER_IMAGE_VIEW = [
    dict(type='RandomResizedCrop', size=32, scale=(0.2, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.2,
                hue=0.1)
        ],
        prob=0.8),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.114, 0.587, 0.2989)),
]
_DSPNET = {
    'no-growth':
    Idea('all sub-networks and the largest target from the start', _NO_GROWTH),
    'grow-30':
    Idea('the shallowest is alone, and the target, for the first 30 %', {
        **grown(sandwich(), until=0.3),
        **target('shallowest', 0.3)
    }),
    'grow-50':
    Idea('the shallowest is alone, and the target, for the first half', {
        **grown(sandwich(), until=0.5),
        **target('shallowest', 0.5)
    }),
    'grow-from-smallest':
    Idea(
        'the supernet grows from the smallest network, others at random', {
            **grown(sandwich(), start='smallest'),
            **target('smallest', 0.7),
            **_AT_RANDOM
        }),
    'grow-from-medium':
    Idea('the supernet grows from the medium network, others at random', {
        **grown(sandwich(), start='medium'),
        **target('medium', 0.7),
        **_AT_RANDOM
    }),
    'begin-at-random':
    Idea('larger networks begin at random', _AT_RANDOM),
    'target-until-50':
    Idea('the shallowest is the target until half of the training',
         target('shallowest', 0.5)),
    'target-until-70':
    Idea('the shallowest is the target until 70 % are done',
         target('shallowest', 0.7)),
    'target-shallowest':
    Idea('the shallowest is the target throughout',
         {'model.target': 'shallowest'}),
    'slow-start-30':
    Idea('the supernet alone for the first 30 %', {
        **grown(sandwich(), start='large', until=0.3),
        **_ALL_AT_ONCE
    }),
    'slow-start-50':
    Idea('the supernet alone for the first half', {
        **grown(sandwich(), start='large'),
        **_ALL_AT_ONCE
    }),
    'one-random':
    Idea('largest, smallest and one more, once grown',
         {f'{_GROWN}.num_random': 1}),
    'any-member':
    Idea('the two between the ends are any members of the family',
         {f'{_GROWN}.desired_prob': 0.}),
    'losses-averaged':
    Idea('one step, with the mean of the losses', {
        **_STEP_ONCE, 'model.loss_weights': 'mean'
    }),
    'largest-weighted':
    Idea("one step, in which the supernet's loss counts 2.5 times", {
        **_STEP_ONCE, 'model.loss_weights': dict(large=2.5)
    }),
    'no-predictor-warm-up':
    Idea('the predictor does not learn alone before the rest',
         {'model.predictor_warmup': 0.}),
    'zero-init':
    Idea('residual blocks start as the identity',
         {'model.backbone.zero_init_residual': True}),
    'switchable-bn':
    Idea('batch norm of its own for each desired network',
         {'model.switchable_bn': True}),
    'slim-hidden':
    Idea('hidden layers of projector and predictor are slimmed', {
        'model.neck.slim_hidden': True,
        'model.head.predictor.slim_hidden': True
    }),
    'growing-range':
    Idea('the smallest DN gets smaller in four equal phases', growing_range()),
    'step-once':
    Idea('one step of the optimizer with the gradients of all sub-networks',
         _STEP_ONCE),
    'average-gradients':
    Idea('one step, with the average of the gradients of those that share', {
        **_STEP_ONCE, 'model.average_gradients': True
    }),
    'group-decay':
    Idea('weight decay falls with the group of channels', {
        'model.group_decay': 5e-4,
        'optim_wrapper.optimizer.weight_decay': 0.
    }),
    'follow-once':
    Idea('the target network follows once for each batch',
         {'model.follow_each_step': False}),
    'target-twin':
    Idea('each learns from the same sub-network of the target network',
         {'model.target': 'twin'}),
    'distill-online':
    Idea('half of the loss is to predict what the online supernet does',
         {'model.distillation': 'online'}),
    'second-predictor':
    Idea(
        'all from the start, and the smaller ones have a second predictor',
        # While a smaller one trains alone, the first would learn nothing.
        {
            **_NO_GROWTH, 'model.distillation': 'second_predictor'
        }),
    'per-image-views':
    Idea(
        "MMSelfSup's transforms of one image at a time (folders alone)", {
            'model.data_preprocessor':
            dict(
                _delete_=True,
                type='SelfSupDataPreprocessor',
                mean=(123.675, 116.28, 103.53),
                std=(58.395, 57.12, 57.375),
                bgr_to_rgb=True),
            'train_dataloader.dataset.pipeline': [
                dict(type='LoadImage'),
                dict(
                    type='MultiView',
                    num_views=2,
                    transforms=[_PER_IMAGE_VIEW]),
                dict(
                    type='PackSelfSupInputs',
                    meta_keys=['img_path', 'converted'])
            ]
        }),
}
_ALL_WIDTHS = {'model.sampler': dict(_delete_=True, type='AllDesiredSampler')}
_LONGER_START = {'model.sampler.phases.0.until': 0.5}
_SLIMCLR = {
    'no-slow-start':
    Idea('all sub-networks from the start', _ALL_WIDTHS),
    'slow-start-50':
    Idea('the supernet is alone for the first half', _LONGER_START),
    'no-distillation':
    Idea('the smaller ones learn nothing from the online supernet',
         {'model.distillation': False}),
    'sharp-distillation':
    Idea('similarities are distilled at a temperature of 0.2',
         {'model.distillation_temperature': 0.2}),
    'losses-summed':
    Idea("the supernet's loss counts as much as the others",
         {'model.loss_weights': 'sum'}),
    'losses-by-width':
    Idea("a sub-network's loss counts as much as it is wide",
         {'model.loss_weights': 'width'}),
    'losses-by-share':
    Idea('a loss counts by the part of all widths, in sum 1',
         {'model.loss_weights': 'width_share'}),
    'losses-by-mean':
    Idea('a loss counts by the width over the mean width',
         {'model.loss_weights': 'width_over_mean'}),
    'losses-smaller-added':
    Idea('a loss counts 1 and all smaller widths, in the mean 1',
         {'model.loss_weights': 'smaller_added'}),
    'none-of-three':
    Idea('neither slow start nor distillation nor weights', {
        **_ALL_WIDTHS, 'model.distillation': False,
        'model.loss_weights': 'sum'
    }),
    'step-once':
    _DSPNET['step-once'],
    'step-once-slow-start-50':
    Idea('one step, and the supernet is alone for the first half', {
        **_STEP_ONCE,
        **_LONGER_START
    }),
    'follow-once':
    _DSPNET['follow-once'],
    'shared-bn':
    Idea('batch norm is shared and recalibrated',
         {'model.switchable_bn': False}),
}
_US3L = {
    'no-phases':
    Idea(
        'any width from the start', {
            'model.sampler':
            dict(
                _delete_=True,
                type='SandwichSampler',
                desired_prob=0.5,
                uniform=True)
        }),
    'one-predictor':
    Idea("the smaller ones learn by the supernet's predictor",
         {'model.distillation': 'none'}),
    'equal-decay':
    Idea('weights decay alike in all groups of channels',
         {'model.group_slope': 0.}),
    'step-once':
    _DSPNET['step-once'],
}
IDEAS = {
    'dspnet': _DSPNET,
    'us3l': _US3L,
    'slimclr-mocov2': _SLIMCLR,
    'slimclr-mocov3': _SLIMCLR
}


def report_of(idea: Idea, ours: List[Outcome], theirs: List[Outcome],
              costs: Costs) -> dict:
    """What an idea changes: in the mean, by network, and by seed.

    Args:
        idea (Idea): The idea.
        ours (list[Outcome]): Its outcomes, by seed.
        theirs (list[Outcome]): Those of the config as it is.
        costs (list[dict]): What a training of each costs.
    """
    figures = figures_of(ours, theirs, costs[:1], costs[1:])
    row: Dict[str, Any] = dict(idea=idea.text)
    for key, kind in (('gain', 'mean'), ('smaller', 'smaller')):
        for metric in METRICS:
            name = f'{metric}_gain_{kind}'
            row[f'{metric}_{key}'] = dict(
                mean=figures[name], se=figures[f'{name}_se'])
    row['cost_ratio'] = figures['cost_ratio']
    return dict(
        rows=[row],
        subnets=[
            dict(
                idea=idea.text,
                subnet=name,
                **{
                    f'{metric}_gain': gain
                    for metric, gain in gains.items()
                }) for name, gains in gains_by_network(ours, theirs).items()
        ],
        options=idea.options,
        figures=figures,
        by_seed=dict(
            idea=[each.as_json() for each in ours],
            shipped=[each.as_json() for each in theirs]))


def side_by_side(stem: str, ideas: Dict[str, Idea],
                 about: dict) -> Dict[str, List[dict]]:
    """The rows of all ideas that have been compared alike.

    Args:
        stem (str): What their reports' paths begin with.
        ideas (dict): The ideas, by name.
        about (dict): The seeds, setting and budget that they have in common.
            Those of other ones stay out.
    """
    everything: Dict[str, List[dict]] = dict(rows=[], subnets=[])
    # As JSON has it.
    wanted = json.loads(json.dumps(about))
    for name in ideas:
        report = read_json(f'{stem}_{name}.json')
        if report and all(report[key] == wanted[key]
                          for key in ('seeds', 'setting', 'budget')):
            for part, rows in everything.items():
                rows += report[part]
    return everything


def chosen(args: argparse.Namespace, sides: Sides) -> Setting:
    """What a report says that is best for the method on the same data."""
    report = read(args.settings)
    budget, data = trained_on(report)
    if os.path.normpath(data) != os.path.normpath(args.data):
        raise InputError(f'{args.settings} is of {data}: give one of '
                         f'{args.data}')
    # As JSON has it.
    if budget != json.loads(json.dumps(sides.budget._asdict())):
        raise InputError(f'{args.settings} is of another budget: give one of '
                         f'--budget {args.budget}')
    if args.method not in report['settings']:
        raise InputError(f'{args.settings} is of '
                         f'{", ".join(report["settings"])}: give one of '
                         f'{args.method}')
    return Setting(**report['settings'][args.method][SUPERNET]['best'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--ideas',
        nargs='+',
        required=True,
        metavar='NAME',
        help='. '.join(f'{METHODS[method]}: ' +
                       '; '.join(f'{name}: {idea.text}'
                                 for name, idea in ideas.items())
                       for method, ideas in IDEAS.items()).replace('%', '%%'))
    parser.add_argument(
        '--settings',
        metavar='REPORT.json',
        help='take the learning rate and the momentum that '
        'once_vs_one_by_one.py chose for the method on such data (default: '
        'those of the config)')
    args = parse_args(parser)
    ideas = IDEAS[args.method]
    for name in args.ideas:
        if name not in ideas:
            raise InputError(f'--ideas {name} does not exist for '
                             f'{args.method}: choose from {", ".join(ideas)}')
    for name, reason in _NOT_OF_DIGITS.items():
        if name in args.ideas and args.data == 'digits':
            raise InputError(f'--ideas {name} {reason}: leave it out')
    networks = '' if args.dns == OWN_DNS else args.dns
    stem = report_stem(args, 'ablation', f'{report_name(args)}{networks}')
    check_writable(f'{stem}.json')
    changes = [{}, *(ideas[name].options for name in args.ideas)]
    compared, briefly = ([
        Sides(args, args.method, options, epochs=epochs) for options in changes
    ] for epochs in (None, COST_EPOCHS))
    shipped = compared[0]
    setting = Setting(shipped.cfg.optim_wrapper.optimizer.lr)
    if args.settings:
        setting = chosen(args, shipped)
    about = dict(
        setting=setting._asdict(),
        budget=shipped.budget._asdict(),
        seeds=args.seeds,
        command=command_line(__file__))

    # Before anything is trained.
    for path in (f'{stem}.json', *(f'{stem}_{name}.json'
                                   for name in args.ideas)):
        earlier = check_earlier(path, args)
        if earlier and earlier['setting'] != about['setting']:
            raise InputError(f'{path} is of another learning rate or '
                             'momentum: give another --out')
    names = ['as shipped', *args.ideas]

    def job(name: str, sides: Sides, seed: int) -> Job:
        return sides.job(args.method, SUPERNET, setting,
                         seed)._replace(idea=name)

    known: Dict[str, str] = {}
    for name, sides in zip(names, compared):
        folder = job(name, sides, args.seeds[0]).folder
        if folder in known:
            raise InputError(f'--ideas {name} is the same training as '
                             f'{known[folder]!r} on {args.data}: leave it out')
        known[folder] = name
    check_images(shipped.place, shipped.folder)

    with workers(args.processes) as pool:
        outcomes = run_all([[job(name, sides, seed)]
                            for name, sides in zip(names, compared)
                            for seed in args.seeds], shipped.folder, pool)
        (cost, *costs), = measure_costs([[
            job(name, sides, args.seeds[0])
            for name, sides in zip(names, briefly)
        ]], shipped.folder, pool)
    about['versions'] = trained_with(
        [each for outcome in outcomes for each in outcome.versions])
    theirs, *by_idea = [
        outcomes[begin:begin + len(args.seeds)]
        for begin in range(0, len(outcomes), len(args.seeds))
    ]
    for name, ours, of_idea in zip(args.ideas, by_idea, costs):
        report = report_of(ideas[name], ours, theirs, [of_idea, cost])
        write_json(f'{stem}_{name}.json', dict(report, **about))
    everything = side_by_side(stem, ideas, about)
    write_json(f'{stem}.json', dict(everything, **about))
    print(results_table(everything['rows']))
    print(f'gains over the shipped config, in points: {stem}.json, of all '
          'ideas that have been compared like this, and a file for each')


if __name__ == '__main__':
    run(main)
