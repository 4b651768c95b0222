# Copyright (c) The dspnet_mm authors. All rights reserved.
"""A trained supernet, from its config and checkpoint."""
from typing import Optional

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS

from dspnet_mm.checkpoint import load_checkpoint, load_every_tensor
from dspnet_mm.errors import InputError
from dspnet_mm.models import SupernetAlgorithm
from dspnet_mm.models.backbones import build_family
from dspnet_mm.subnet import ResNetFamily


def read_config(path: str) -> Config:
    """Read any config.

    Args:
        path (str): The config.

    Returns:
        Config: The config.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return Config.fromfile(path)
    except InputError:
        # What a config that takes an exported network says of it.
        raise
    except FileNotFoundError as error:
        raise InputError(f'{path} or a config it builds on does not exist '
                         f'({error}): give one that does')
    except Exception as error:
        # A config is a program of its author.
        reason = str(error).strip().split('\n')[0]
        raise InputError(f'{path} cannot be read as a config '
                         f'({type(error).__name__}: {reason}): mend it, or '
                         'give another')


def load_config(path: str, options: Optional[dict] = None) -> Config:
    """Read a training config.

    Args:
        path (str): The config.
        options (dict, optional): Values that replace the config's. Defaults
            to None.

    Returns:
        Config: The config.

    Raises:
        InputError: If it cannot be read or is not for a supernet.
    """
    cfg = read_config(path)
    try:
        cfg.merge_from_dict(options or {})
    except Exception as error:
        # MMEngine's, of whatever kind.
        raise InputError(f'--cfg-options cannot be set in {path} ({error}): '
                         'give keys that it has')
    model = cfg.get('model')
    if not isinstance(model, dict) or not isinstance(
            model.get('family'), dict):
        raise InputError(f'{path} describes no supernet: it has no '
                         'model.family. Give the config that the supernet '
                         'was trained with')
    return cfg


def build_family_of(cfg: Config) -> ResNetFamily:
    """Build the family that a config describes, without the supernet.

    Args:
        cfg (Config): From :func:`load_config`.

    Returns:
        ResNetFamily: The family.

    Raises:
        InputError: If a value of it is not allowed.
    """
    init_default_scope(cfg.get('default_scope', 'mmselfsup'))
    return build_family(cfg.model.family.to_dict())


def build_supernet(cfg: Config) -> SupernetAlgorithm:
    """Build what a config describes.

    Args:
        cfg (Config): From :func:`load_config`.

    Returns:
        SupernetAlgorithm: The algorithm, in evaluation mode.

    Raises:
        InputError: If it cannot be built.
    """
    init_default_scope(cfg.get('default_scope', 'mmselfsup'))
    try:
        model = MODELS.build(cfg.model)
    except InputError:
        raise
    except Exception as error:
        # Whatever a changed config makes of our own classes.
        reason = str(error).strip().split('\n')[0]
        raise InputError(f'the model of the config cannot be built ({reason}):'
                         ' give the training config, and keys that it has')
    model.eval()
    return model


def load_supernet(cfg: Config, checkpoint_path: str) -> SupernetAlgorithm:
    """Build a supernet and load its weights, every one of them.

    Args:
        cfg (Config): From :func:`load_config`.
        checkpoint_path (str): A checkpoint of the training.

    Returns:
        SupernetAlgorithm: The algorithm, in evaluation mode.

    Raises:
        InputError: If the checkpoint cannot be read or does not fit.
    """
    state = load_checkpoint(checkpoint_path)['state_dict']
    model = build_supernet(cfg)
    load_every_tensor(
        model, state, f'{checkpoint_path} does not fit the config',
        'Give the config it was trained with; the work directory holds a copy')
    return model
