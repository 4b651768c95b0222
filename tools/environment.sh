#!/usr/bin/env bash
#
# Builds the environment that the reference results were made in: .venv in the
# project's root. Run it again at any time: it goes on where it was stopped,
# follows changed requirement files, and returns at once when nothing is left
# to do.
#
#   bash tools/environment.sh            everything that the README uses
#   bash tools/environment.sh --tests    and what tools/test.sh needs
#
#   PYTHON=python3.9   the interpreter to use (CPython 3.8 to 3.11)
#   CXX=clang++        the compiler for mmcv's ops
#   MAX_JOBS=4         how many files of mmcv to compile at a time
#   PIP_...            pip's own settings: index, proxy, cache
#
# Exit codes: 0 the environment is complete, 1 a stage failed, 2 this machine
# lacks something, said in one line, and nothing was touched.

if [[ ${BASH_SOURCE[0]} != "$0" ]]; then
    echo 'tools/environment.sh: run it with bash; do not source it' >&2
    return 2
fi
set -euo pipefail

refuse() {
    printf 'tools/environment.sh: %s\n' "$*" >&2
    exit 2
}

if ((BASH_VERSINFO[0] < 4)); then
    refuse "found bash $BASH_VERSION, needs bash 4 or newer; install it and" \
        'run this script with it'
fi

with_tests=
for argument in "$@"; do
    case $argument in
        --tests) with_tests=1 ;;
        -h | --help)
            while IFS= read -r line; do
                [[ $line == '#!'* ]] && continue
                [[ $line == '#'* ]] || break
                line=${line#'#'}
                printf '%s\n' "${line# }"
            done <"${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) refuse "unknown argument '$argument', knows --tests and --help" ;;
    esac
done

case ${BASH_SOURCE[0]} in
    */*) cd -- "${BASH_SOURCE[0]%/*}/.." ;;
    *) cd .. ;;
esac
root=$(pwd -P)
venv=$root/.venv
stamps=$venv/.stages
log=$venv/environment.log
python=$venv/bin/python

# Settings that would send the packages elsewhere, or shadow them.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PYTHONNOUSERSITE=1
# A question that nobody sees would stall the build.
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Must say the same under every locale, as the log is read by its words.
export LC_ALL=C

stages=(venv build torch mmcv runtime)
[[ -n $with_tests ]] && stages+=(tests)
stages+=(project check)

declare -A title=(
    [venv]='virtual environment (seconds)'
    [build]='build tools (seconds)'
    [torch]='torch and torchvision (2 to 10 minutes, a download of 2.3 GB)'
    [mmcv]='mmcv with its ops (1 minute if prebuilt, else 6 on 2 cores)'
    [runtime]='the OpenMMLab packages and the rest (1 to 3 minutes)'
    [tests]='test requirements (seconds)'
    [project]='dspnet_mm itself, editable (seconds)'
    [check]='consistency check (seconds)'
)
# The files that a stage has to follow. A stage after which another one has to
# be looked at again (mmcv is compiled against torch) lends it its file.
declare -A follows=(
    [venv]=''
    [build]='build'
    [torch]='torch constraints'
    [mmcv]='torch mmcv'
    [runtime]='torch mmcv runtime constraints'
    [tests]='torch mmcv runtime tests constraints'
    [project]='/setup.py /setup.cfg /dspnet_mm/version.py'
    [check]='build torch mmcv runtime tests constraints /setup.py'
)

# --- What is there, and what is left to do -----------------------------------

# Prints the version of an interpreter and, on a second line, what it lacks.
# Its own start-up may print things too, hence the mark.
probe() {
    "$1" -I -c '
import os, sys, sysconfig
lacks = ""
if sys.implementation.name != "cpython" or sys.maxsize < 2**32:
    lacks = "is not a 64-bit CPython"
elif not (3, 8) <= sys.version_info[:2] <= (3, 11):
    lacks = "is Python %d.%d" % sys.version_info[:2]
else:
    try:
        import ensurepip, venv
    except ImportError as error:
        lacks = "has no " + error.name
    else:
        header = os.path.join(sysconfig.get_path("include"), "Python.h")
        if not os.path.exists(header):
            lacks = "has no headers (Python.h)"
print("@%d.%d.%d" % sys.version_info[:3])
print("@" + lacks)
' 2>/dev/null | sed -n 's/^@//p'
}

# Sets interpreter and interpreter_version, or refuses.
find_interpreter() {
    local candidates=(python3.11 python3.10 python3.9 python3.8 python3)
    local found=() candidate answer version lacks
    [[ -n ${PYTHON:-} ]] && candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if ! interpreter=$(type -P -- "$candidate"); then
            [[ -n ${PYTHON:-} ]] && found+=("$candidate is not there")
            continue
        fi
        answer=$(probe "$interpreter") || answer=
        { read -r version && read -r lacks; } <<<"$answer" || true
        if [[ -z $answer ]]; then
            # What pyenv puts on PATH for versions that are not selected.
            found+=("$candidate does not run")
        elif [[ -n $lacks ]]; then
            found+=("$candidate $lacks")
        else
            interpreter_version=$version
            return 0
        fi
    done
    local list='no python3 on PATH'
    if ((${#found[@]})); then
        list=$(printf ', %s' "${found[@]}")
        list=${list#, }
    fi
    refuse "found no usable Python ($list); needs CPython 3.8 to 3.11 with" \
        'venv, ensurepip and its headers; install one (Debian, Ubuntu:' \
        'python3 python3-venv python3-dev) or set PYTHON=/path/to/python'
}

# The compiler is tried, as one without its headers is of no use.
find_compiler() {
    local candidates=(c++ g++ clang++) candidate
    [[ -n ${CXX:-} ]] && candidates=("$CXX")
    for candidate in "${candidates[@]}"; do
        # Unquoted: CXX may be two words, such as "ccache g++".
        # shellcheck disable=SC2086
        if $candidate -std=c++14 -fsyntax-only -x c++ - \
            <<<'#include <vector>' >/dev/null 2>&1; then
            export CXX=$candidate
            # Python would link with gcc, which is then not there either.
            if [[ $CXX == clang++ ]]; then
                export CC=${CC:-clang}
            fi
            return 0
        fi
    done
    local list
    list=$(printf ', %s' "${candidates[@]}")
    refuse "found no working C++ compiler (tried ${list#, }); mmcv's ops need" \
        'one that knows C++14; install one (Debian, Ubuntu: g++) or set' \
        'CXX=/path/to/compiler'
}

# Prints the free megabytes, or nothing where they cannot be read.
free_space() {
    local line place=$root
    [[ ! -d $venv ]] || place=$venv/
    line=$(df -Pk "$place" 2>/dev/null | tail -n 1) || return 0
    if [[ $line =~ \ [0-9]+\ +-?[0-9]+\ +(-?[0-9]+)\ +[0-9]+% ]]; then
        echo $((BASH_REMATCH[1] / 1024))
    fi
}

# Measured: 5.3 GB in the end, and 6.7 GB while torch's wheels are unpacked
# beside each other.
check_disk() {
    local need=300 free
    if is_missing torch; then
        need=7000
    elif is_missing mmcv || is_missing runtime; then
        need=2000
    fi
    free=$(free_space)
    if [[ -n $free ]] && ((free < need)); then
        refuse "found $free MB free for $venv, needs $need MB; free some" \
            'space or make .venv a link to an empty directory on another disk'
    fi
}

key_of() {
    local name files=()
    for name in ${follows[$1]}; do
        case $name in
            /*) files+=("$root$name") ;;
            *) files+=("$root/requirements/$name.txt") ;;
        esac
    done
    printf '%s %s %s' "$root" "${venv_version%.*}" \
        "$(cat /dev/null "${files[@]}" | cksum)"
}

is_missing() {
    [[ " ${missing[*]} " == *" $1 "* ]]
}

# Sets missing (the stages to run), venv_version, and rebuild (why an
# environment that is there has to go). Changes nothing.
plan() {
    local stage answer
    rebuild='' venv_version='' missing=("${stages[@]}")
    interpreter='' interpreter_version=''
    [[ -n ${PYTHON:-} ]] && find_interpreter
    if [[ -e $venv || -L $venv ]]; then
        answer=$(probe "$python") || answer=
        venv_version=${answer%%$'\n'*}
        if [[ -z $answer ]]; then
            rebuild='its interpreter does not run'
        elif [[ ! -d $stamps ]]; then
            # Made by hand. Kept if it can serve, never thrown away.
            case $venv_version in 3.8.* | 3.9.* | 3.10.* | 3.11.*) ;; *)
                refuse "found a .venv of Python $venv_version that this" \
                    'script did not make, needs Python 3.8 to 3.11; move it away'
                ;;
            esac
            "$python" -m pip --version >/dev/null 2>&1 ||
                refuse 'found a .venv without pip that this script did not' \
                    'make, needs pip in it; move it away'
            missing=("${stages[@]:1}")
        elif [[ ! -e $stamps/venv ]]; then
            rebuild='its creation was interrupted'
        elif [[ $(<"$stamps/venv") != "$root "* ]]; then
            rebuild='it was made in another directory'
        elif [[ -n $interpreter && ${interpreter_version%.*} != \
            "${venv_version%.*}" ]]; then
            rebuild="it is Python $venv_version, and PYTHON is"
            rebuild+=" $interpreter_version"
        else
            missing=()
            for stage in "${stages[@]}"; do
                if [[ ! -e $stamps/$stage ||
                    $(<"$stamps/$stage") != "$(key_of "$stage")" ]]; then
                    missing+=("$stage")
                fi
            done
        fi
        # An empty directory, or a link to one: a place for the environment.
        if [[ -z $(ls -A "$venv/" 2>/dev/null) ]]; then
            rebuild=
        fi
    fi
    if is_missing venv; then
        [[ -n $interpreter ]] || find_interpreter
        venv_version=$interpreter_version
    fi
}

finish_if_complete() {
    if ((${#missing[@]} == 0)); then
        echo "Environment complete: .venv, Python $venv_version."
        exit 0
    fi
}

# --- One run at a time -------------------------------------------------------

# Takes the lock through descriptor 9, as flock(1) would, which not every
# system has. An argument makes it fail at once if another run has it.
lock() {
    "${interpreter:-$python}" -I -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))
except BlockingIOError:
    sys.exit(75)' "$@"
}

# What pip started keeps descriptor 9 open, so the lock holds until the last of
# them has ended, even if this script is killed. The file itself stays: were it
# removed, two runs could hold two locks of the same name.
take_lock() {
    local code=0
    exec 9>>"$root/.venv.lock"
    lock now || code=$?
    if ((code == 75)); then
        echo 'Waiting for another run that is building .venv (process' \
            "$(<"$root/.venv.lock")). Stop it, or let it finish."
        lock
    elif ((code)); then
        exit "$code"
    fi
    echo $$ >"$root/.venv.lock"
}

# --- The stages --------------------------------------------------------------

logged() {
    printf '\n--- %s: %s\n' "$(date '+%F %T')" "$*" >>"$log"
    # No input, so that nothing waits for an answer.
    "$@" >>"$log" 2>&1 </dev/null
}

pip() {
    logged "$python" -m pip "$@"
}

# All pins constrain every call, so that no stage undoes another one's.
install() {
    local pins=() name
    for name in build torch mmcv runtime tests constraints; do
        pins+=(-c "$root/requirements/$name.txt")
    done
    # Packages that come as source are built with the setuptools pinned here;
    # isolated builds would fetch the newest, without pkg_resources.
    pip install --no-build-isolation "${pins[@]}" "$@"
}

with_limit() {
    local seconds=$1
    shift
    if type -P timeout >/dev/null; then
        timeout --foreground -k 5 "$seconds" "$@"
    elif type -P perl >/dev/null; then
        perl -e 'alarm shift; exec @ARGV' "$seconds" "$@"
    else
        "$@"
    fi
}

# bin goes first: what is left of a removal that was interrupted does not run.
stage_venv() {
    rm -rf "${venv:?}/bin" && mkdir -p "$venv" &&
        find "$venv/" -mindepth 1 -delete &&
        mkdir -p "$stamps" "$TMPDIR" &&
        logged "$interpreter" -m venv "$venv"
}

stage_build() {
    install -r requirements/build.txt
}

# pip's cache would take another 2.3 GB, often of the same disk.
stage_torch() {
    local options=() free
    free=$(free_space)
    if [[ -n $free ]] && ((free < 10000)); then
        options=(--no-cache-dir)
    fi
    install ${options[@]+"${options[@]}"} -r requirements/torch.txt
}

mmcv_works() {
    logged "$python" -c "
import mmcv, mmcv.ops
assert mmcv.__version__ == '$mmcv_pin', mmcv.__version__"
}

drop_mmcv() {
    pip uninstall -y mmcv
}

# Not built here, so only for a moment: where OpenMMLab's host is not to be
# reached, compiling is the way, and must not wait for it.
mmcv_prebuilt() {
    local build=cpu
    has_gpu && build=cu117
    with_limit 120 "$python" -m pip install --no-deps --only-binary mmcv \
        --retries 0 --timeout 8 -r requirements/mmcv.txt -f \
        "https://download.openmmlab.com/mmcv/dist/$build/torch2.0.0/index.html" \
        >>"$log" 2>&1 </dev/null && install -r requirements/mmcv.txt
}

has_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

# One compiler process for mmcv takes up to 2 GB.
compile_jobs() {
    local jobs memory
    jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || jobs=1
    memory=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo \
        2>/dev/null) || memory=
    if [[ -n $memory ]]; then
        memory=$((memory / 2000000))
        ((jobs <= memory)) || jobs=$memory
    fi
    ((jobs >= 1)) || jobs=1
    echo "$jobs"
}

mmcv_from_source() {
    local settings=(MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(compile_jobs)}")
    if has_gpu && ! type -P nvcc >/dev/null && [[ -z ${CUDA_HOME:-} ]]; then
        echo '    no CUDA compiler (nvcc): mmcv gets its CPU ops only'
        settings+=(CUDA_VISIBLE_DEVICES=)
    fi
    (
        export "${settings[@]}"
        install -r requirements/mmcv.txt "$@"
    )
}

stage_mmcv() {
    mmcv_works && return
    drop_mmcv
    mmcv_prebuilt && mmcv_works && return
    drop_mmcv
    mmcv_from_source || return
    mmcv_works && return
    # pip's cache may hold a wheel without ops, from an install elsewhere that
    # did not ask for them.
    drop_mmcv
    mmcv_from_source --no-cache-dir --no-binary mmcv && mmcv_works
}

stage_runtime() {
    install -r requirements/torch.txt -r requirements/mmcv.txt \
        -r requirements/runtime.txt
}

stage_tests() {
    install -r requirements/tests.txt
}

stage_project() {
    pip install --no-build-isolation --no-deps -e "$root"
}

stage_check() {
    pip check
}

run_stage() {
    local stage=$1
    rm -f "$stamps/$stage"
    if ! "stage_$stage"; then
        {
            echo "tools/environment.sh: stage '$stage' failed; the end of $log:"
            tail -n 15 "$log" | sed 's/^/    /'
            echo 'Mend what it says and run this script again: it goes on here.'
        } >&2
        exit 1
    fi
    # In one move: a stamp that is there is whole.
    key_of "$stage" >"$stamps/.$stage"
    mv -f "$stamps/.$stage" "$stamps/$stage"
}

# --- Main --------------------------------------------------------------------

mmcv_pin=$(sed -n 's/^mmcv==\([0-9.a-z]*\).*/\1/p' requirements/mmcv.txt \
    2>/dev/null) || true

plan
finish_if_complete
# On disk already, it needs no compiler, even if torch is looked at again.
is_missing mmcv && find_compiler
check_disk

take_lock
plan
finish_if_complete

# pip unpacks gigabytes there, and /tmp is small on some machines.
own_tmp=
if [[ -z ${TMPDIR:-} ]]; then
    export TMPDIR=$venv/tmp
    own_tmp=1
fi
if [[ -n $rebuild ]]; then
    echo "Building .venv anew: $rebuild."
fi
# From here on the environment is not complete until the check says so.
rm -f "$stamps/check"
is_missing check || missing+=(check)
if ! is_missing venv; then
    mkdir -p "$stamps"
    [[ -e $stamps/venv ]] || key_of venv >"$stamps/venv"
    if [[ -n $own_tmp ]]; then
        rm -rf "$TMPDIR"
        mkdir -p "$TMPDIR"
    fi
fi
count=0
for stage in "${missing[@]}"; do
    count=$((count + 1))
    echo "[$count/${#missing[@]}] ${title[$stage]}; details: .venv/environment.log"
    run_stage "$stage"
done
if [[ -n $own_tmp ]]; then
    rm -rf "$TMPDIR"
fi
echo "Environment ready: .venv, Python $venv_version."
