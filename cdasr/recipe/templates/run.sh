#!/usr/bin/env bash
# Robust recognition on the corpus @NAME@:
#
#   bash @FOLDER@/run.sh [--stage N] [--stop-stage M] [--size default|tiny] [--redo true] [--key value ...]
#
# --help lists the stages and options. Results and models go to exp/@NAME@ in the folder where it is run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec "$python" -m cdasr.recipe run --recipe "$here" "$@"
