#!/usr/bin/env bash
#
# Checks the formatting and runs the tests, in the environment that it first
# completes (tools/environment.sh). Its last line is pytest's summary, its exit
# code is 0 only if everything was in order.
#
#   bash tools/test.sh           all but the slow tests
#   bash tools/test.sh --slow    the slow ones as well
#   bash tools/test.sh -x -k mim other arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

select=(-m 'not slow')
arguments=()
for argument in "$@"; do
    if [[ $argument == --slow ]]; then
        select=()
    else
        arguments+=("$argument")
    fi
done

bash tools/environment.sh --tests
# What tests start by name, such as mim, has to come from there as well.
export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
# Threads beyond the cores slow small networks down, tenfold if two such
# processes meet.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

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
check ".venv/bin/python -m yapf -i -r ${paths[*]}" yapf --diff --recursive
check ".venv/bin/python -m isort ${paths[*]}" isort --check-only --diff --quiet
check 'by hand, at the lines above' flake8
if ((code)); then
    echo 'The formatting is not in order, so the exit code will not be 0,' \
        'whatever the tests say.' >&2
fi

# ${a[@]+...}: bash before 4.4 takes an empty array for an unset one.
python -m pytest ${select[@]+"${select[@]}"} ${arguments[@]+"${arguments[@]}"} ||
    code=$?
exit "$code"
