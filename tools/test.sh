#!/usr/bin/env bash
#
# Checks the formatting and runs the tests, in the environment that it first
# completes (tools/environment.sh). Its last line is pytest's summary, its exit
# code is 0 only if everything was in order.
#
#   bash tools/test.sh           all but the slow tests
#   bash tools/test.sh --slow    the slow ones as well
#   bash tools/test.sh --smoke   the quickest that show that a stack works
#   bash tools/test.sh -x -k mim other arguments go to pytest
#
#   --stack modern               with any of them: in .venv-modern, the tests
#                                alone, without those of detection and
#                                segmentation
#   --stack modern --full        with those, too; compiles mmcv's ops
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

select=(-m 'not slow')
arguments=() environment=()
stack=reference full=
while (($#)); do
    case $1 in
        --slow) select=() ;;
        --smoke) select=(-m smoke) ;;
        --stack)
            # Refused by tools/environment.sh if it is none.
            stack=${2-}
            environment+=(--stack "$stack")
            shift $(($# > 1))
            ;;
        --full)
            full=1
            environment+=(--full)
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

# ${a[@]+...}: bash before 4.4 takes an empty array for an unset one.
bash tools/environment.sh --tests ${environment[@]+"${environment[@]}"}
venv=.venv
[[ $stack == reference ]] || venv=.venv-$stack
# What tests start by name, such as mim, has to come from there as well.
export VIRTUAL_ENV=$PWD/$venv PATH=$PWD/$venv/bin:$PATH
# Threads beyond the cores slow small networks down, tenfold if two such
# processes meet.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# All packages are there, so that a test that misses one has to fail.
if [[ $stack == reference || -n $full ]]; then
    export DSPNET_MM_TEST_ALL=1
fi

code=0
paths=(dspnet_mm configs tools tests setup.py)
check() {
    local fix=$1
    shift
    if ! python -m "$@" "${paths[@]}"; then
        echo "Formatting: ${1} is not content. To fix it: $fix" >&2
        code=1
    fi
}
# Once is enough, and the reference stack is the one that is always tested.
if [[ $stack == reference ]]; then
    check ".venv/bin/python -m yapf -i -r ${paths[*]}" \
        yapf --diff --recursive
    check ".venv/bin/python -m isort ${paths[*]}" \
        isort --check-only --diff --quiet
    check 'by hand, at the lines above' flake8
fi
if ((code)); then
    echo 'The formatting is not in order, so the exit code will not be 0,' \
        'whatever the tests say.' >&2
fi

# A file's tests stay together, as they share what they trained.
python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile \
    ${select[@]+"${select[@]}"} ${arguments[@]+"${arguments[@]}"} || code=$?
exit "$code"
