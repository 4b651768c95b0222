# Copyright (c) The dspnet_mm authors. All rights reserved.
"""The READMEs say what is so."""
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.config import Config
from mmselfsup.registry import MODELS

RESULTS = os.path.join(ROOT, 'tools', 'benchmarks', 'results')
READMES = ('README.md', os.path.join('configs', 'dspnet', 'README.md'),
           os.path.join('configs', 'benchmarks', 'README.md'),
           os.path.join('configs', 'slimclr', 'README.md'),
           os.path.join('configs', 'us3l', 'README.md'),
           os.path.join('configs', 'sdr', 'README.md'))


def read(name):
    with open(os.path.join(ROOT, name)) as file:
        return file.read()


def blocks(name):
    return re.findall(r'```python\n(.*?)```', read(name), re.DOTALL)


def test_tables_are_those_of_the_results():
    done = run_tool(os.path.join('benchmarks', 'readme_tables.py'), '--check')
    assert done.returncode == 0, done.stdout + done.stderr
    for name in READMES:
        assert re.search(r'<!-- table [\w. -]+ -->\n\n\| .*?<!-- end -->',
                         read(name), re.DOTALL)


def test_results_name_their_command_and_versions():
    names = [name for name in os.listdir(RESULTS) if name.endswith('.json')]
    assert names
    for name in names:
        with open(os.path.join(RESULTS, name)) as file:
            result = json.load(file)
        assert result['command'].startswith('python tools/'), name
        assert '/work' not in result['command'], name
        assert result['versions']['torch'], name


@pytest.mark.parametrize('name', READMES)
def test_links_lead_somewhere(name):
    for link in re.findall(r'\]\(([^)#]+?)(?:#[^)]*)?\)', read(name)):
        if not link.startswith('http'):
            path = os.path.join(ROOT, os.path.dirname(name), link)
            assert os.path.exists(path), link


@pytest.mark.parametrize('name', READMES)
def test_anchors_are_of_headings(name):
    for link, anchor in re.findall(r'\]\(([^)#]*)#([^)]*)\)', read(name)):
        if not link.startswith('http'):
            path = os.path.join(os.path.dirname(name), link) if link else name
            headings = re.findall('^#+ (.*)$', read(path), re.MULTILINE)
            anchors = [
                re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
                for heading in headings
            ]
            assert anchor in anchors, anchor


@pytest.mark.parametrize('name', READMES)
def test_commands_are_of_files_and_options_that_exist(name):
    commands = re.findall(r'^ {4}(?:[A-Z_]+=\S+ )*((?:python|mim|bash) .*)$',
                          read(name), re.MULTILINE)
    commands += re.findall(r'`(python tools/.*?)`', read(name))
    assert commands
    for command in commands:
        words = shlex.split(command)
        for word in words:
            if word.startswith(('tools/', 'configs/')):
                assert os.path.exists(os.path.join(ROOT, word)), command
        if words[0] == 'python':
            known = run_tool(os.path.relpath(words[1], 'tools'),
                             '--help').stdout
            options = re.findall(r'--[\w-]+', known)
            for word in words:
                if word.startswith('--'):
                    assert word in options, command


def test_the_family_of_ones_own_builds(tmp_path):
    own, = [block for block in blocks('README.md') if 'family=' in block]
    assert len(own.strip().split('\n')) <= 10
    folder = os.path.join(ROOT, 'configs', 'dspnet')
    path = tmp_path / 'own.py'
    path.write_text(own.replace("'./", f"'{folder}/"))
    cfg = Config.fromfile(str(path))
    model = MODELS.build(cfg.model)
    assert list(model.family.desired) == ['server', 'phone', 'watch']


@pytest.mark.needs('mmdet', 'mmcv.ops')
def test_a_toolbox_loads_what_was_exported(trained, tmp_path, monkeypatch):
    assert run_tool('slim_export.py', trained.config, trained.checkpoint,
                    '--out-dir',
                    tmp_path / 'work_dirs' / 'quickstart' / 'exports',
                    '--subnet', 'small', '--calib-images', 8).returncode == 0
    snippet, = [block for block in blocks('README.md') if 'strict' in block]
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(snippet, scope)
    outputs = scope['backbone'](torch.rand(1, 3, 32, 32))
    assert [output.shape[1] for output in outputs] == scope['cfg'].out_channels


@pytest.mark.needs('timm')
def test_libraries_load_what_was_exported(trained_64_channels, tmp_path,
                                          monkeypatch):
    assert run_tool('slim_export.py', trained_64_channels.config,
                    trained_64_channels.checkpoint, '--out-dir', tmp_path,
                    '--subnet', 'large', '--calib-images', 8, '--format',
                    'timm', 'torchvision').returncode == 0
    snippet, = [block for block in blocks('README.md') if 'timm' in block]
    monkeypatch.chdir(tmp_path)
    snippet = snippet.replace('EXPORTS/', '').replace('NAME', 'large')
    scope = {}
    both = []
    for part in snippet.split('\n\n'):
        exec(part, scope)
        if 'network' in part:
            both.append(scope['network'].eval()(torch.rand(1, 3, 32, 32)))
    assert [output.shape for output in both] == [(1, 512)] * 2


@pytest.mark.parametrize(
    'name', ['family_resnet18-small.json', 'family_resnet50_in1k.json'])
def test_families_cost_what_the_results_say(name, tmp_path):
    with open(os.path.join(RESULTS, name)) as file:
        expected = json.load(file)
    _, tool, config, *_ = shlex.split(expected['command'])
    out = tmp_path / 'family.json'
    done = run_tool(
        os.path.relpath(tool, 'tools'), os.path.join(ROOT, config), '--out',
        out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for key in ('rows', 'input_size'):
        assert found[key] == expected[key]


@pytest.mark.parametrize('script, args', [('quickstart', []),
                                          ('transfer', ['digits-det', '-h'])])
def test_scripts_run_the_commands_that_they_stand_for(script, args, tmp_path):
    """In the environment that they complete first."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    shutil.copy(os.path.join(ROOT, 'tools', f'{script}.sh'), tools)
    log = tmp_path / 'log'
    (tools / 'environment.sh').write_text(f'echo environment >> {log}\n')
    programs = tmp_path / '.venv' / 'bin'
    programs.mkdir(parents=True)
    for name in ('mim', 'python'):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
        program.chmod(0o755)
    subprocess.run(['bash', str(tools / f'{script}.sh'), *args], check=True)
    environment, *commands = log.read_text().splitlines()
    assert environment == 'environment'
    if script == 'transfer':
        assert commands == [f'python {tools}/transfer.py digits-det -h']
        return
    _, text = read('README.md').split('## Three commands of everyday use')
    text, *_ = text.split('### What to slim')
    assert commands == re.findall(r'^ {4}((?:mim|python) .*)$', text,
                                  re.MULTILINE)


def test_the_quick_start_refuses_arguments():
    done = subprocess.run(
        ['bash',
         os.path.join(ROOT, 'tools', 'quickstart.sh'), '--data'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True)
    assert done.returncode == 2
    assert done.stderr.startswith('error: --data is not allowed')
