#!/usr/bin/env bash
# Connected digits in noise, on the Free Spoken Digit Dataset. From the repository's root:
#
#   bash recipes/digits/run.sh [--stage N] [--stop-stage M] [--size default|tiny] [--redo true]
#                              [--stale redo|refuse|keep] [--key value ...]
#
# --help lists the stages and options.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec "$python" -m cdasr.recipe run --recipe "$here" "$@"
