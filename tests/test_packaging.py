# Copyright (c) The dspnet_mm authors. Licensed under Apache-2.0.
"""What is built from the source tree, and tools/environment.sh.

Nothing here needs a network: packages are built in copies of the tree, and the
script meets an interpreter, a compiler and a disk that only pretend.
"""
import glob
import os
import os.path as osp
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter

import conftest
import pytest

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
MIM = ('configs', 'tools', 'model-index.yml')
PARTS = MIM + ('dspnet_mm', 'requirements', 'setup.py', 'setup.cfg',
               'MANIFEST.in', 'LICENSE')


def files_under(*parts):
    """List the files under a directory, following links."""
    top = osp.join(*parts)
    return {
        osp.relpath(osp.join(folder, name), top)
        for folder, _, names in os.walk(top, followlinks=True)
        for name in names
    }


def everything_under(top):
    return {
        osp.join(folder, name): os.lstat(osp.join(folder, name)).st_mtime_ns
        for folder, folders, names in os.walk(top)
        for name in folders + names
    }


@pytest.fixture
def tree(tmp_path):
    """A copy of the source tree, as a fresh clone has it.

    Without what single trainings gave, more than a thousand files.
    """
    top = tmp_path / 'tree'
    top.mkdir()
    ignore = shutil.ignore_patterns('__pycache__', '.mim', 'trainings')
    for name in PARTS:
        source = osp.join(ROOT, name)
        if osp.isdir(source):
            shutil.copytree(source, str(top / name), ignore=ignore)
        else:
            shutil.copy2(source, str(top / name))
    (top / 'README.md').write_text('# A title\n')
    return top


def mim_files(tree):
    """List what has to be in `.mim`."""
    return {
        name
        for name in files_under(tree)
        if name.split(os.sep)[0] in MIM and '__pycache__' not in name
    }


# --- Packages ----------------------------------------------------------------


def run_python(tree, *args, **env):
    # The user's settings for pip could lead to a network.
    inherited = {k: v for k, v in os.environ.items() if k[:4] != 'PIP_'}
    env = dict(inherited, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX='1', **env)
    result = subprocess.run([sys.executable, *map(str, args)],
                            cwd=str(tree),
                            env=env,
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                            universal_newlines=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


def build_wheel(tree, target):
    run_python(tree, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation',
               '--wheel-dir', target, tree)
    wheel, = glob.glob(osp.join(str(target), '*.whl'))
    names = zipfile.ZipFile(wheel).namelist()
    assert max(Counter(names).values()) == 1
    return wheel, names


def mim_in_wheel(names):
    prefix = 'dspnet_mm/.mim/'
    return {
        osp.join(*name[len(prefix):].split('/'))
        for name in names if name.startswith(prefix)
    }


def install_by_develop(tree, tmp_path):
    """Install into a directory of its own, as `setup.py develop` does."""
    target = tmp_path / 'site'
    target.mkdir()
    run_python(
        tree,
        'setup.py',
        'develop',
        '--no-deps',
        '--install-dir',
        target,
        PYTHONPATH=str(target))


def test_wheel_holds_mim_and_leaves_the_tree_alone(tree, tmp_path):
    (tree / 'tools' / '__pycache__').mkdir()
    (tree / 'tools' / '__pycache__' / 'x.pyc').write_text('')
    before = everything_under(str(tree))
    wheel, names = build_wheel(tree, tmp_path / 'wheels')
    assert everything_under(str(tree)) == before
    assert mim_in_wheel(names) == mim_files(tree)
    assert 'dspnet_mm/.mim/tools/environment.sh' in names
    assert not [n for n in names if n.endswith('.pyc')]
    assert {n.split('/')[0].split('-')[0] for n in names} == {'dspnet_mm'}
    # Copies, not links to the tree.
    zipfile.ZipFile(wheel).extractall(str(tmp_path / 'site'))
    shutil.rmtree(str(tree))
    assert files_under(str(tmp_path), 'site/dspnet_mm/.mim/configs')


def test_wheel_after_an_editable_install(tree, tmp_path):
    # Links in the tree, one of them dangling, and an old build directory.
    (tree / 'dspnet_mm' / '.mim').mkdir()
    for name in MIM + ('gone', ):
        os.symlink(
            osp.join('..', '..', name), str(tree / 'dspnet_mm/.mim' / name))
    stale = tree / 'build' / 'lib' / 'dspnet_mm' / '.mim' / 'configs'
    stale.mkdir(parents=True)
    (stale / 'stale.py').write_text('')
    _, names = build_wheel(tree, tmp_path / 'wheels')
    assert mim_in_wheel(names) == mim_files(tree)
    assert files_under(tree, 'dspnet_mm/.mim') >= mim_files(tree)


def test_source_distribution_builds_the_same_wheel(tree, tmp_path):
    _, expected = build_wheel(tree, tmp_path / 'wheels')
    run_python(tree, 'setup.py', '-q', 'sdist', '--dist-dir', tmp_path)
    archive, = glob.glob(str(tmp_path / '*.tar.gz'))
    with tarfile.open(archive) as tar:
        tar.extractall(str(tmp_path / 'unpacked'))
    unpacked = glob.glob(str(tmp_path / 'unpacked' / '*'))[0]
    assert files_under(tree,
                       'requirements') <= files_under(unpacked, 'requirements')
    _, names = build_wheel(unpacked, tmp_path / 'again')
    assert sorted(names) == sorted(expected)


def test_editable_install_by_develop_links_mim(tree, tmp_path):
    import setuptools
    if int(setuptools.__version__.split('.')[0]) >= 80:
        pytest.skip('develop hands over to pip there')
    (tree / 'dspnet_mm' / '.mim').mkdir()
    os.symlink('nowhere', str(tree / 'dspnet_mm/.mim/configs'))
    install_by_develop(tree, tmp_path)
    assert files_under(tree, 'dspnet_mm/.mim') == mim_files(tree)
    # Links: what is added later is there at once.
    (tree / 'configs' / 'added.py').write_text('')
    assert (tree / 'dspnet_mm/.mim/configs/added.py').exists()
    assert not [
        name for name in os.listdir(str(tree / 'dspnet_mm/.mim'))
        if osp.isabs(os.readlink(str(tree / 'dspnet_mm/.mim' / name)))
    ]


def setuptools_with_pep660(tmp_path):
    """Find a setuptools of 64 or newer: this one, or ensurepip's."""
    import ensurepip
    import setuptools
    if int(setuptools.__version__.split('.')[0]) >= 64:
        return ''
    bundled = glob.glob(
        osp.join(
            osp.dirname(ensurepip.__file__), '_bundled', 'setuptools-*.whl'))
    for wheel in bundled:
        if int(re.search(r'setuptools-(\d+)', wheel).group(1)) >= 64:
            zipfile.ZipFile(wheel).extractall(str(tmp_path / 'setuptools'))
            return str(tmp_path / 'setuptools')
    pytest.skip('no setuptools of 64 or newer at hand')


@pytest.mark.parametrize('mode', ['lenient', 'strict'])
def test_editable_install_by_pep660_links_mim(tree, tmp_path, mode):
    code = ('import sys; from setuptools import build_meta; '
            'build_meta.__legacy__.build_editable(sys.argv[1], '
            "{'editable-mode': sys.argv[2], 'editable_mode': sys.argv[2]})")
    run_python(
        tree,
        '-c',
        code,
        tmp_path,
        mode,
        PYTHONPATH=setuptools_with_pep660(tmp_path))
    assert len(glob.glob(str(tmp_path / '*.whl'))) == 1
    assert files_under(tree, 'dspnet_mm/.mim') == mim_files(tree)
    assert osp.islink(str(tree / 'dspnet_mm/.mim/configs'))
    for built in glob.glob(str(tree / 'build/__editable__*/dspnet_mm')):
        assert files_under(built, '.mim') == mim_files(tree)


def test_a_missing_part_of_mim_is_an_error(tree):
    (tree / 'model-index.yml').unlink()
    with pytest.raises(AssertionError, match='model-index.yml is missing'):
        run_python(tree, 'setup.py', 'bdist_wheel')


@pytest.mark.parametrize('stack', ['reference', 'modern'])
def test_requirements_agree(stack):
    """Each version is written once, or the same everywhere."""
    folder = osp.join(ROOT, 'requirements')
    files = {name: osp.join(folder, name) for name in os.listdir(folder)}
    own = files.pop('modern')
    if stack == 'modern':
        files.update({name: osp.join(own, name) for name in os.listdir(own)})
    pins = {}
    for path in files.values():
        with open(path, encoding='utf-8') as f:
            for line in f:
                line = line.split('#')[0].strip()
                if line:
                    assert re.match(r'[\w.-]+==[\w.]+(; python_version .*)?$',
                                    line), f'{path}: {line}'
                    requirement, _, marker = line.partition(';')
                    name, version = requirement.split('==')
                    key = name.lower().replace('_', '-'), marker
                    assert key not in pins, f'{path}: {name} is pinned twice'
                    pins[key] = version
    for name in ('flake8', 'isort', 'yapf'):
        version = pins[name, '']
        with open(osp.join(ROOT, 'setup.cfg'), encoding='utf-8') as f:
            assert f'{name}=={version}' in f.read()
        with open(
                osp.join(ROOT, '.pre-commit-config.yaml'),
                encoding='utf-8') as f:
            assert re.search(rf'/{name}\n +rev: v?{re.escape(version)}\n',
                             f.read())


# --- tools/environment.sh ----------------------------------------------------

TOOLS = ('bash cat chmod cksum cp date df dirname env find getconf grep ls '
         'mkdir mv rm sed sleep tail timeout touch').split()

# Answers as an interpreter would, and notes what pip was asked for.
FAKE_PYTHON = r'''#!/usr/bin/env bash
here=${0%/*}
case "$1 $2" in
    '-I -c')
        [[ $3 != *fcntl* ]] || exec "$FAKE_REAL" "$@"
        printf '@%s\n@%s\n' "${FAKE_VERSION:-3.11.7}" "$FAKE_LACKS" ;;
    '-m venv') mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    '-m pip')
        shift 2
        echo "$*" >>"$FAKE_LOG"
        case $* in
            *"${FAKE_FAIL:-nothing}"*) echo 'pip says why'; exit 1 ;;
            *"${FAKE_HANG:-nothing}"*) sleep "$FAKE_SECONDS" ;;
            'uninstall -y mmcv mmcv-lite') rm -f "$here/ops" ;;
            *--only-binary*)
                [[ $FAKE_PREBUILT != works ]] || touch "$here/ops"
                [[ -n $FAKE_PREBUILT ]] || exit 1 ;;
            *'-r requirements/mmcv.txt'*)
                [[ $MMCV_WITH_OPS != 1 ]] || touch "$here/ops"
                [[ -z $CC ]] || "$CC" -std=c++14 -o a.out >>"$FAKE_LOG" ;;
        esac ;;
    '-m pytest')
        echo "pytest ${here#"$PWD"/} all=$DSPNET_MM_TEST_ALL: ${*:3}" \
            >>"$FAKE_LOG"
        [[ $* != *"${FAKE_FAIL:-nothing}"* ]] ;;
    '-c '*) [[ -e $here/ops ]] ;;
esac
'''
STAGE_OF = {
    '-r requirements/build.txt': 'build',
    '-r requirements/torch.txt': 'torch',
    '--only-binary mmcv': 'mmcv: prebuilt',
    '-r requirements/mmcv.txt': 'mmcv',
    '-r requirements/torch.txt -r requirements/runtime.txt': 'runtime',
    '-r requirements/tests.txt': 'tests',
    '-r requirements/modern/build.txt': 'build',
    '-r requirements/modern/torch.txt': 'torch',
    '-r requirements/modern/lite.txt': 'lite',
    '-r requirements/modern/torch.txt -r requirements/modern/runtime.txt':
    'runtime',
    '-r requirements/modern/toolboxes.txt': 'toolboxes',
}


class Machine:
    """A machine that has just what a test gives it."""

    def __init__(self, tmp_path, tree):
        self.tree = tree
        self.bin = tmp_path / 'bin'
        self.log = tmp_path / 'pip.log'
        self.bin.mkdir()
        for name in TOOLS:
            if shutil.which(name):
                os.symlink(shutil.which(name), str(self.bin / name))
        self.give('python3.11', FAKE_PYTHON)
        self.give('c++', '#!/bin/sh\nexit 0\n')
        self.give_disk(50000)

    def give(self, name, text):
        path = self.bin / name
        if osp.lexists(str(path)):
            path.unlink()
        path.write_text(text)
        path.chmod(0o755)

    def give_disk(self, megabytes):
        self.give(
            'df', '#!/bin/sh\necho Filesystem 1024-blocks Used Available '
            f'Capacity Mounted on\necho /dev/x 9 9 {megabytes * 1024} 9% /\n')

    def take(self, name):
        (self.bin / name).unlink()

    def start(self, *args, script='tools/environment.sh', **env):
        env = dict(
            dict(
                PATH=str(self.bin),
                HOME=str(self.tree.parent),
                FAKE_LOG=str(self.log),
                FAKE_REAL=sys.executable), **env)
        return subprocess.Popen([str(self.bin / 'bash'), script, *args],
                                cwd=str(self.tree),
                                env=env,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE,
                                universal_newlines=True,
                                start_new_session=True)

    def run(self, *args, **env):
        """Return exit code, standard output, standard error and the stages
        for which pip was called."""
        if self.log.exists():
            self.log.unlink()
        process = self.start(*args, **env)
        out, err = process.communicate()
        return process.returncode, out, err, self.stages()

    def stages(self):
        stages = []
        for line in self.log.read_text().splitlines() if self.log.exists(
        ) else ():
            line = re.sub(r'(-c|-f) \S+ ?', '', line)
            if line.startswith('install'):
                options, mark, files = line.partition('-r ')
                stage = STAGE_OF.get((mark + files).strip(), 'project')
                if '--only-binary' in options:
                    stage = 'mmcv: prebuilt'
                stages.append(stage)
            elif line == 'check':
                stages.append(line)
        return stages


@pytest.fixture
def machine(tmp_path, tree):
    if not shutil.which('bash'):
        pytest.skip('needs bash')
    return Machine(tmp_path, tree)


ALL = ['build', 'torch', 'mmcv: prebuilt', 'mmcv', 'runtime', 'project']


@pytest.mark.parametrize('change, env, words', [
    (lambda m: m.take('python3.11'), {}, ['no python3 on PATH', '3.8 to 3.11'
                                          ]),
    (lambda m: m.give('python3.11', '#!/bin/sh\nexit 127\n'), {},
     ['python3.11 does not run', 'PYTHON=']),
    (lambda m: None, {
        'FAKE_LACKS': 'has no ensurepip'
    }, ['python3.11 has no ensurepip', 'python3-venv']),
    (lambda m: None, {
        'PYTHON': 'python3.9'
    }, ['python3.9 is not there']),
    (lambda m: m.take('c++'), {}, ['C++ compiler', 'tried c++, g++', 'CXX=']),
    (lambda m: m.give('c++', '#!/bin/sh\nexit 1\n'), {}, ['C++ compiler']),
    (lambda m: None, {
        'CXX': 'nonesuch --flag'
    }, ['tried nonesuch --flag', 'CXX=']),
    (lambda m: m.give_disk(900), {}, ['found 900 MB free', 'needs 7000 MB']),
])
def test_environment_refuses_in_one_line(machine, change, env, words):
    change(machine)
    before = everything_under(str(machine.tree))
    code, out, err, stages = machine.run(**env)
    assert (code, out, stages) == (2, '', [])
    assert err.count('\n') == 1 and err.startswith('tools/environment.sh: ')
    for word in words:
        assert word in err
    assert everything_under(str(machine.tree)) == before


def test_environment_takes_an_interpreter_that_runs(machine):
    machine.give('python3.11', '#!/bin/sh\nexit 127\n')
    machine.give('python3.9', FAKE_PYTHON)
    code, out, err, _ = machine.run(FAKE_VERSION='3.9.2')
    assert (code, err) == (0, '')
    assert out.splitlines()[-1] == 'Environment ready: .venv, Python 3.9.2.'
    # One that is there and serves is kept, whatever else appears on PATH.
    machine.give('python3.11', FAKE_PYTHON)
    code, out, _, stages = machine.run(FAKE_VERSION='3.9.2')
    assert 'complete' in out and not stages


def test_environment_stages(machine):
    code, out, err, stages = machine.run()
    assert (code, err, stages) == (0, '', ALL + ['check'])
    assert len(out.splitlines()) == 8
    first = machine.log.read_text()

    start = time.time()
    code, out, err, stages = machine.run()
    assert (code, err, stages) == (0, '', [])
    assert out == 'Environment complete: .venv, Python 3.11.7.\n'
    assert time.time() - start < 2

    # Enough for torch, but not for another copy in pip's cache.
    assert '--no-cache-dir' not in first
    machine.give_disk(8000)
    shutil.rmtree(str(machine.tree / '.venv'))
    assert machine.run()[3] == ALL + ['check']
    assert machine.log.read_text().count('--no-cache-dir') == 1

    # The tests' requirements come on top; without them is still complete.
    # No compiler is asked for any more.
    machine.take('c++')
    machine.give_disk(400)
    code, _, err, stages = machine.run('--tests')
    assert (code, err, stages) == (0, '', ['tests', 'check'])
    assert machine.run()[3] == machine.run('--tests')[3] == []


@pytest.mark.parametrize('file, stages', [
    ('requirements/build.txt', ['build']),
    ('requirements/torch.txt', ['torch', 'runtime', 'tests']),
    ('requirements/runtime.txt', ['runtime', 'tests']),
    ('requirements/constraints.txt', ['torch', 'runtime', 'tests']),
    ('requirements/tests.txt', ['tests']),
    ('setup.cfg', ['project']),
])
def test_environment_follows_changed_files(machine, file, stages):
    machine.run('--tests')
    with open(str(machine.tree / file), 'a') as f:
        f.write('# changed\n')
    # mmcv is looked at again after torch, and kept, as it still imports.
    assert machine.run('--tests')[3] == stages + ['check']
    assert machine.run('--tests')[3] == []


def test_environment_goes_on_where_it_failed(machine):
    code, _, err, stages = machine.run(FAKE_FAIL='-r requirements/runtime.txt')
    assert (code, stages) == (1, ALL[:-1])
    log = str(machine.tree / '.venv' / 'environment.log')
    assert log in err and '    pip says why\n' in err
    assert machine.run()[3] == ['runtime', 'project', 'check']


@pytest.mark.parametrize('prebuilt, stages', [
    ('works', ['mmcv: prebuilt', 'mmcv']),
    ('does not import', ['mmcv: prebuilt', 'mmcv', 'mmcv']),
    ('', ['mmcv: prebuilt', 'mmcv']),
])
def test_environment_compiles_mmcv_if_it_must(machine, prebuilt, stages):
    machine.run()
    (machine.tree / '.venv' / 'bin' / 'ops').unlink()
    (machine.tree / '.venv' / '.stages' / 'mmcv').unlink()
    # Called once more after a prebuilt one, for what mmcv itself requires.
    code, _, _, called = machine.run(FAKE_PREBUILT=prebuilt)
    assert (code, called) == (0, stages + ['check'])
    assert (machine.tree / '.venv' / 'bin' / 'ops').exists()


def test_environment_goes_on_after_a_kill(machine):
    process = machine.start(
        FAKE_HANG='-r requirements/torch.txt', FAKE_SECONDS='30')
    deadline = time.time() + 10
    while 'torch' not in machine.stages() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, out, _, stages = machine.run()
    assert (code, stages) == (0, ALL[1:] + ['check'])
    assert out.startswith('[1/5] torch')


@pytest.mark.parametrize('damage, why', [
    (lambda venv: (venv / 'bin' / 'python').unlink(), 'does not run'),
    (lambda venv: (venv / '.stages' / 'venv').unlink(), 'interrupted'),
    (lambda venv: (venv / '.stages' / 'venv').write_text('/elsewhere 3.11 0'),
     'another directory'),
])
def test_environment_replaces_what_is_broken(machine, damage, why):
    machine.run()
    damage(machine.tree / '.venv')
    (machine.tree / '.venv' / 'left over').write_text('')
    code, out, _, stages = machine.run()
    assert (code, stages) == (0, ALL + ['check'])
    assert out.startswith('Building .venv anew: ') and why in out
    assert not (machine.tree / '.venv' / 'left over').exists()


def test_environment_on_another_disk(machine, tmp_path):
    (tmp_path / 'disk').mkdir()
    os.symlink(str(tmp_path / 'disk'), str(machine.tree / '.venv'))
    code, out, _, stages = machine.run()
    assert (code, stages) == (0, ALL + ['check'])
    assert out.startswith('[1/7]')
    # It stays there when it is built anew.
    (tmp_path / 'disk' / 'bin' / 'python').unlink()
    assert machine.run()[3] == ALL + ['check']
    assert (machine.tree / '.venv').is_symlink()
    assert (tmp_path / 'disk' / 'bin' / 'python').exists()


def test_environment_of_another_checkout_is_left_alone(machine, tmp_path):
    machine.run()
    other = tmp_path / 'other'
    shutil.copytree(str(machine.tree), str(other), symlinks=True)
    shutil.rmtree(str(machine.tree / '.venv'))
    os.symlink(str(other / '.venv'), str(machine.tree / '.venv'))
    stamp = other / '.venv' / '.stages' / 'venv'
    stamp.write_text(stamp.read_text().replace(str(machine.tree), str(other)))
    before = everything_under(str(other))
    code, _, err, stages = machine.run()
    assert (code, stages) == (2, [])
    assert 'made for another directory' in err and 'remove the link' in err
    assert everything_under(str(other)) == before


def test_environment_is_not_built_with_its_own_interpreter(machine):
    machine.run()
    venv = machine.tree / '.venv'
    (venv / '.stages' / 'venv').write_text('/elsewhere 3.11 0')
    shutil.copy(str(venv / 'bin' / 'python'), str(venv / 'bin' / 'python3.11'))
    before = everything_under(str(venv))
    own = str(venv / 'bin')
    # As after activating it: with no other on PATH, nothing is touched.
    machine.take('python3.11')
    code, _, err, stages = machine.run(PATH=f'{own}:{machine.bin}')
    assert (code, stages) == (2, [])
    assert 'python3.11 is that of .venv itself' in err
    assert everything_under(str(venv)) == before
    machine.give('python3.9', FAKE_PYTHON)
    code, _, _, stages = machine.run(PATH=f'{own}:{machine.bin}')
    assert (code, stages) == (0, ALL + ['check'])


def test_environment_asked_for_another_python(machine):
    machine.run()
    machine.give('python3.8',
                 FAKE_PYTHON.replace('${FAKE_VERSION:-3.11.7}', '3.8.18'))
    code, out, _, stages = machine.run(PYTHON='python3.8')
    assert (code, stages) == (0, ALL + ['check'])
    assert 'it is Python 3.11.7, and PYTHON is 3.8.18' in out


def test_environment_keeps_what_is_not_its_own(machine):
    (machine.tree / '.venv' / 'bin').mkdir(parents=True)
    python = machine.tree / '.venv' / 'bin' / 'python'
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    code, _, err, _ = machine.run(
        FAKE_VERSION='3.12.1', FAKE_LACKS='is Python 3.12')
    assert code == 2 and 'did not make' in err and python.exists()
    assert machine.run()[3] == ALL + ['check']


def test_environment_is_built_by_one_run_at_a_time(machine):
    slow = dict(FAKE_HANG='-r requirements/build.txt', FAKE_SECONDS='1.5')
    runs = [machine.start(**slow) for _ in range(2)]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert machine.stages() == ALL + ['check']
    waited, = [out for out, _ in outputs if 'Waiting for another run' in out]
    assert waited.endswith('Environment complete: .venv, Python 3.11.7.\n')


@pytest.mark.parametrize('arguments, code, words', [
    ('--help', 0, ''),
    ('--nonsense', 2, "unknown argument '--nonsense'"),
    ('--stack', 2, "unknown stack ''"),
    ('--stack new', 2, "unknown stack 'new', give --stack reference or"),
    ('--full', 2, 'add --stack modern'),
    ('--full --stack reference', 2, 'leave --full out'),
])
def test_environment_arguments(machine, arguments, code, words):
    before = everything_under(str(machine.tree))
    result, out, err, _ = machine.run(*arguments.split())
    assert result == code
    assert ('bash tools/environment.sh' in out) == (code == 0)
    assert err.count('\n') == (code != 0)
    assert words in err
    assert everything_under(str(machine.tree)) == before


# --- The modern stack --------------------------------------------------------

MODERN = '--stack', 'modern'
PYTHON_312 = FAKE_PYTHON.replace('3.11.7', '3.12.1')


@pytest.fixture
def modern_machine(machine):
    machine.give('python3.12', PYTHON_312)
    return machine


def test_modern_needs_no_compiler_and_leaves_the_reference_alone(
        modern_machine):
    modern_machine.take('c++')
    code, out, err, stages = modern_machine.run(*MODERN)
    assert (code, err) == (0, '')
    assert stages == ['build', 'torch', 'lite', 'runtime', 'project', 'check']
    assert out.endswith('Environment ready: .venv-modern, Python 3.12.1.\n')
    pip = modern_machine.log.read_text()
    for name in ('modern/torch', 'modern/constraints', 'mmcv', 'tests'):
        assert re.search(rf'-c \S+/requirements/{name}\.txt', pip), name
    assert '/requirements/torch.txt' not in pip
    assert (modern_machine.tree / '.venv-modern' / 'environment.log').exists()
    assert not (modern_machine.tree / '.venv').exists()
    assert modern_machine.run(*MODERN, '--tests')[3] == ['tests', 'check']
    assert modern_machine.run(*MODERN)[3] == []


def test_modern_full_replaces_mmcv_by_a_compiled_one(modern_machine):
    modern_machine.give('c++', '#!/bin/sh\necho compiler "$@"\n')
    modern_machine.run(*MODERN)
    code, _, err, stages = modern_machine.run(*MODERN, '--full')
    assert (code, err) == (0, '')
    # OpenMMLab has nothing prebuilt for this torch, so nothing is looked for.
    assert stages == ['mmcv', 'toolboxes', 'check']
    pip = modern_machine.log.read_text()
    assert pip.index('uninstall -y mmcv mmcv-lite') < pip.index('compiler')
    assert 'compiler -std=c++17 -o a.out\n' in pip
    assert modern_machine.run(*MODERN, '--full')[3] == []
    # What is there serves those who ask for less, and is not taken away.
    assert modern_machine.run(*MODERN)[3] == ['check']
    assert 'mmcv-lite' not in modern_machine.log.read_text()
    assert modern_machine.run(*MODERN)[3] == []


def test_modern_goes_on_after_mmcv_failed_to_compile(modern_machine):
    modern_machine.run(*MODERN)
    fail = '-r requirements/mmcv.txt'
    assert modern_machine.run(*MODERN, '--full', FAKE_FAIL=fail)[0] == 1
    # Taken out for the other, so that it has to come back.
    assert modern_machine.run(*MODERN)[3] == ['lite', 'check']


def test_modern_follows_its_own_files(modern_machine):
    modern_machine.run(*MODERN)
    for name in ('requirements/runtime.txt', 'requirements/constraints.txt'):
        with open(str(modern_machine.tree / name), 'a') as f:
            f.write('# changed\n')
    assert modern_machine.run(*MODERN)[3] == []
    with open(str(modern_machine.tree / 'requirements/modern/lite.txt'),
              'a') as f:
        f.write('# changed\n')
    assert modern_machine.run(*MODERN)[3] == ['lite', 'check']


@pytest.mark.parametrize('change, arguments, words', [
    (lambda m: m.take('python3.12'), (), ['no python3 on PATH', '3.12']),
    (lambda m: m.take('c++'), ('--full', ), ['C++ compiler', 'C++17']),
    (lambda m: m.give_disk(900), (),
     ['found 900 MB free for', '.venv-modern', 'make .venv-modern a link']),
])
def test_modern_refuses_in_one_line(modern_machine, change, arguments, words):
    change(modern_machine)
    before = everything_under(str(modern_machine.tree))
    code, out, err, stages = modern_machine.run(*MODERN, *arguments)
    assert (code, out, stages) == (2, '', [])
    assert err.count('\n') == 1 and err.startswith('tools/environment.sh: ')
    for word in words:
        assert word in err
    assert everything_under(str(modern_machine.tree)) == before


def test_an_interpreter_is_asked_for_its_own_version(machine):
    version = sys.version_info[:2]
    stack = 'modern' if version < (3, 12) else 'reference'
    code, _, err, _ = machine.run('--stack', stack, PYTHON=sys.executable)
    assert code == 2
    assert 'is Python {}.{}'.format(*version) in err


def test_an_interpreter_that_pyenv_hides_is_found(machine, tmp_path):
    # What pyenv puts on PATH for versions that are not selected.
    machine.give('python3.12', '#!/bin/sh\nexit 127\n')
    hidden = tmp_path / 'pyenv' / 'versions' / '3.12.1' / 'bin'
    hidden.mkdir(parents=True)
    (hidden / 'python3.12').write_text(PYTHON_312)
    (hidden / 'python3.12').chmod(0o755)
    assert machine.run(*MODERN)[0] == 2
    code, out, _, _ = machine.run(*MODERN, PYENV_ROOT=str(tmp_path / 'pyenv'))
    assert code == 0 and 'Python 3.12.1' in out


# --- tools/test.sh and .ci/run -----------------------------------------------

# Files are spread over the cores.
PARALLEL = '--numprocesses auto --maxprocesses 8 --dist loadfile'


def pytest_calls(machine):
    calls = re.findall('^pytest (.*)$', machine.log.read_text(), re.MULTILINE)
    assert all(f': {PARALLEL}' in call for call in calls)
    return [call.replace(PARALLEL, '').replace(':  ', ': ') for call in calls]


@pytest.mark.parametrize('arguments, call', [
    ('', '.venv/bin all=1: -m not slow'),
    ('--slow', '.venv/bin all=1: '),
    ('--smoke', '.venv/bin all=1: -m smoke'),
    ('-x -k mim', '.venv/bin all=1: -m not slow -x -k mim'),
    ('--stack modern', '.venv-modern/bin all=: -m not slow'),
    ('--stack modern --smoke', '.venv-modern/bin all=: -m smoke'),
    ('--stack modern --full -x', '.venv-modern/bin all=1: -m not slow -x'),
])
def test_tests_are_chosen_by_the_arguments(modern_machine, arguments, call):
    code, _, err, _ = modern_machine.run(
        *arguments.split(), script='tools/test.sh')
    assert (code, err) == (0, '')
    assert pytest_calls(modern_machine) == [call]


@pytest.mark.parametrize('arguments', ['--stack', '--stack new', '--full'])
def test_tests_of_no_stack_are_refused(machine, arguments):
    code, out, err, stages = machine.run(
        *arguments.split(), script='tools/test.sh')
    assert (code, out, stages) == (2, '', [])
    assert err.count('\n') == 1


@pytest.mark.parametrize('fail', ['', '-m not slow', '-m smoke'])
def test_continuous_integration_tests_both_stacks(modern_machine, fail):
    shutil.copytree(osp.join(ROOT, '.ci'), str(modern_machine.tree / '.ci'))
    code, _, _, _ = modern_machine.run(script='.ci/run', FAKE_FAIL=fail)
    assert (code == 0) == (fail == '')
    assert pytest_calls(modern_machine) == [
        '.venv/bin all=1: -m not slow', '.venv-modern/bin all=: -m smoke'
    ]


@pytest.mark.parametrize('test_all, outcome', [
    ('', pytest.skip.Exception),
    ('1', pytest.fail.Exception),
])
def test_a_missing_package_skips_or_fails(monkeypatch, test_all, outcome):

    class Item:

        def iter_markers(self, name):
            return [getattr(pytest.mark, name)('json', 'nonesuch').mark]

    monkeypatch.setenv('DSPNET_MM_TEST_ALL', test_all)
    with pytest.raises(outcome, match="needs nonesuch: No module named"):
        conftest.pytest_runtest_setup(Item())
