#!/usr/bin/env bash
#
# Runs the README's commands on scikit-learn's digits, from a fresh clone on, in
# the environment that it first completes (tools/environment.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($#)); then
    echo "error: $1 is not allowed: tools/quickstart.sh takes no arguments" >&2
    exit 2
fi
bash tools/environment.sh
export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}
config=configs/dspnet/dspnet_resnet18-small_1xb32-coslr-40e_digits.py
out=work_dirs/quickstart

run mim train mmselfsup "$config" --work-dir "$out"
run python tools/slim_export.py "$config" "$out/epoch_40.pth" \
    --out-dir "$out/exports" --all --force
run python tools/evaluate.py "$out/exports" --data digits \
    --baselines random pixels --out "$out/report.json"
run python tools/plot_report.py "$out/report.json"

cat <<EOF

The table is above, the picture is $out/report.png.
Next, any other member of the family, with its own width and depth:

    source .venv/bin/activate
    python tools/slim_export.py $config $out/epoch_40.pth \\
        --out-dir work_dirs/slim/next --width 0.5 --depth 2 1 1 1
EOF
