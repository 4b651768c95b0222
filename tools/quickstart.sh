#!/usr/bin/env bash
#
# Runs the README's commands from a fresh clone on, in the environment that it
# first completes (tools/environment.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash tools/environment.sh
export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# the README's commands, one by one
