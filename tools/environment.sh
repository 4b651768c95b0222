#!/usr/bin/env bash
#
# Builds an environment in the project's root: .venv, the reference stack that
# the results were made with, or .venv-modern, the newest PyTorch that works.
# Run it again at any time: it goes on where it was stopped, follows changed
# requirement files, and returns at once when nothing is left to do.
#
#   bash tools/environment.sh                   everything that the README uses
#   bash tools/environment.sh --stack modern    all but detection, segmentation
#   bash tools/environment.sh --stack modern --full    with both, for which it
#                                               compiles mmcv's ops (CPU only)
#   --tests            with any of these: and what tools/test.sh needs
#
#   PYTHON=python3.9   the interpreter to use (CPython 3.8 to 3.11; the modern
#                      stack takes 3.12)
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

stack=reference full='' with_tests=''
while (($#)); do
    case $1 in
        --stack)
            stack=${2-}
            [[ $stack == reference || $stack == modern ]] ||
                refuse "unknown stack '$stack', give --stack reference or" \
                    '--stack modern'
            shift
            ;;
        --full) full=1 ;;
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
        *) refuse "unknown argument '$1', knows --stack, --full, --tests and" \
            '--help' ;;
    esac
    shift
done
[[ -z $full || $stack == modern ]] ||
    refuse 'found --full with the reference stack, which is always whole;' \
        'leave --full out or add --stack modern'

case ${BASH_SOURCE[0]} in
    */*) cd -- "${BASH_SOURCE[0]%/*}/.." ;;
    *) cd .. ;;
esac
root=$(pwd -P)
if [[ $stack == reference ]]; then
    name=.venv
    minors=(11 10 9 8)
    pythons='3.8 to 3.11'
    standard=14
else
    name=.venv-modern
    minors=(12)
    pythons='3.12'
    # mmcv 2.0.1 sets C++14, which torch has refused since 2.1.
    standard=17
fi
venv=$root/$name
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

# The requirement files, all of whose pins hold at any time.
parts=(build torch mmcv runtime tests constraints)
if [[ $stack == reference ]]; then
    stages=(venv build torch mmcv runtime)
else
    parts+=(lite toolboxes)
    if [[ -n $full ]]; then
        stages=(venv build torch mmcv runtime toolboxes)
    else
        stages=(venv build torch lite runtime)
    fi
fi
[[ -n $with_tests ]] && stages+=(tests)
stages+=(project check)

declare -A title=(
    [venv]='virtual environment (seconds)'
    [build]='build tools (seconds)'
    [torch]='torch and torchvision (2 to 10 minutes, a download of 2 GB)'
    [lite]='mmcv without its ops (seconds)'
    [mmcv]='mmcv with its ops (1 minute if prebuilt, else 6 to 20 on 2 cores)'
    [toolboxes]='MMDetection and MMSegmentation (seconds)'
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
    [lite]='lite'
    [mmcv]='torch mmcv'
    [runtime]='torch runtime constraints'
    [toolboxes]='torch runtime toolboxes constraints'
    [tests]='torch runtime tests constraints'
    [project]='/setup.py /setup.cfg /dspnet_mm/version.py'
    [check]='build torch mmcv runtime tests constraints /setup.py'
)

# Both stacks share a file that the modern one has not got for itself.
file_of() {
    local file=requirements/$1.txt
    if [[ $stack != reference && -e $root/requirements/$stack/$1.txt ]]; then
        file=requirements/$stack/$1.txt
    fi
    echo "$file"
}

# --- What is there, and what is left to do -----------------------------------

# Prints the version of an interpreter and, on a second line, what it lacks.
# Its own start-up may print things too, hence the mark.
probe() {
    "$1" -I -c '
import os, sys, sysconfig
lacks = ""
if sys.implementation.name != "cpython" or sys.maxsize < 2**32:
    lacks = "is not a 64-bit CPython"
elif "%d.%d" % sys.version_info[:2] not in sys.argv[1:]:
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
' "${minors[@]/#/3.}" 2>/dev/null | sed -n 's/^@//p'
}

# Sets interpreter and interpreter_version, or refuses.
find_interpreter() {
    local candidates=("${minors[@]/#/python3.}" python3)
    local found=() candidate answer version lacks minor
    # What pyenv has, but does not put on PATH unless it is selected.
    local pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
    for minor in "${minors[@]}"; do
        candidates+=("$pyenv/3.$minor".*/bin/"python3.$minor")
    done
    [[ -n ${PYTHON:-} ]] && candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if ! interpreter=$(type -P -- "$candidate"); then
            [[ -n ${PYTHON:-} ]] && found+=("$candidate is not there")
            continue
        fi
        # What is built anew is emptied first: its own interpreter will go.
        if [[ ${interpreter%/*} -ef $venv/bin ]]; then
            found+=("$candidate is that of $name itself")
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
    refuse "found no usable Python ($list); needs CPython $pythons with" \
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
        if $candidate -std=c++$standard -fsyntax-only -x c++ - \
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
        "one that knows C++$standard; install one (Debian, Ubuntu: g++) or" \
        'set CXX=/path/to/compiler'
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

# Measured: 5.5 GB in the end, and 6.7 GB while torch's wheels are unpacked
# beside each other.
check_disk() {
    local need=300 free
    if is_missing torch; then
        need=7000
    elif is_missing mmcv || is_missing lite || is_missing runtime; then
        need=2000
    fi
    free=$(free_space)
    if [[ -n $free ]] && ((free < need)); then
        refuse "found $free MB free for $venv, needs $need MB; free some" \
            "space or make $name a link to an empty directory on another disk"
    fi
}

key_of() {
    local part files=()
    for part in ${follows[$1]}; do
        case $part in
            /*) files+=("$root$part") ;;
            *) files+=("$root/$(file_of "$part")") ;;
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
    local stage answer lacks
    rebuild='' venv_version='' missing=("${stages[@]}")
    interpreter='' interpreter_version=''
    [[ -n ${PYTHON:-} ]] && find_interpreter
    if [[ -L $venv && -e $stamps/venv ]] &&
        [[ $(<"$stamps/venv") != "$root "* ]]; then
        # It may be in use over there.
        refuse "found $name, a link to an environment that was made for" \
            "another directory; needs one of its own; remove the link"
    fi
    if [[ -e $venv || -L $venv ]]; then
        answer=$(probe "$python") || answer=
        { read -r venv_version && read -r lacks; } <<<"$answer" || true
        if [[ -z $answer ]]; then
            rebuild='its interpreter does not run'
        elif [[ ! -d $stamps ]]; then
            # Made by hand. Kept if it can serve, never thrown away.
            [[ $lacks != 'is '* ]] ||
                refuse "found a $name of Python $venv_version that this" \
                    "script did not make, needs Python $pythons; move it away"
            "$python" -m pip --version >/dev/null 2>&1 ||
                refuse "found a $name without pip that this script did not" \
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
        echo "Environment complete: $name, Python $venv_version."
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
    exec 9>>"$root/$name.lock"
    lock now || code=$?
    if ((code == 75)); then
        echo "Waiting for another run that is building $name (process" \
            "$(<"$root/$name.lock")). Stop it, or let it finish."
        lock
    elif ((code)); then
        exit "$code"
    fi
    echo $$ >"$root/$name.lock"
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
    local pins=() part
    for part in "${parts[@]}"; do
        pins+=(-c "$root/$(file_of "$part")")
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
    install -r "$(file_of build)"
}

# pip's cache would take another 2 GB, often of the same disk.
stage_torch() {
    local options=() free
    free=$(free_space)
    if [[ -n $free ]] && ((free < 10000)); then
        options=(--no-cache-dir)
    fi
    install ${options[@]+"${options[@]}"} -r "$(file_of torch)"
}

mmcv_works() {
    logged "$python" -c "
import mmcv, mmcv.ops
assert mmcv.__version__ == '$mmcv_pin', mmcv.__version__"
}

# Both kinds: either would leave parts of itself under the other.
drop_mmcv() {
    rm -f "$stamps/lite" "$stamps/mmcv"
    pip uninstall -y mmcv mmcv-lite
}

stage_lite() {
    mmcv_works && return
    drop_mmcv
    install -r "$(file_of lite)"
}

# Not built here, so only for a moment: where OpenMMLab's host is not to be
# reached, compiling is the way, and must not wait for it.
mmcv_prebuilt() {
    local build=cpu
    [[ $stack == reference ]] || return
    has_gpu && build=cu117
    with_limit 120 "$python" -m pip install --no-deps --only-binary mmcv \
        --retries 0 --timeout 8 -r "$(file_of mmcv)" -f \
        "https://download.openmmlab.com/mmcv/dist/$build/torch2.0.0/index.html" \
        >>"$log" 2>&1 </dev/null && install -r "$(file_of mmcv)"
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
    if [[ $stack == modern ]]; then
        # CXX may be two words. CC, as distutils compiles C++ with that.
        cat >"$venv/c++17" <<EOF && chmod +x "$venv/c++17" || return
#!/usr/bin/env bash
exec $CXX "\${@/#-std=c++14/-std=c++17}"
EOF
        settings+=(CXX="$venv/c++17" CC="$venv/c++17")
        # nvcc would need the same, which has not been tried.
        settings+=(CUDA_VISIBLE_DEVICES=)
    elif has_gpu && ! type -P nvcc >/dev/null && [[ -z ${CUDA_HOME:-} ]]; then
        echo '    no CUDA compiler (nvcc): mmcv gets its CPU ops only'
        settings+=(CUDA_VISIBLE_DEVICES=)
    fi
    (
        export "${settings[@]}"
        install -r "$(file_of mmcv)" "$@"
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
    install -r "$(file_of torch)" -r "$(file_of runtime)"
}

stage_toolboxes() {
    install -r "$(file_of toolboxes)"
}

stage_tests() {
    install -r "$(file_of tests)"
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

mmcv_pin=$(sed -n 's/^mmcv==\([0-9.a-z]*\).*/\1/p' "$(file_of mmcv)" \
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
    echo "Building $name anew: $rebuild."
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
    echo "[$count/${#missing[@]}] ${title[$stage]}; details:" \
        "$name/environment.log"
    run_stage "$stage"
done
if [[ -n $own_tmp ]]; then
    rm -rf "$TMPDIR"
fi
echo "Environment ready: $name, Python $venv_version."
