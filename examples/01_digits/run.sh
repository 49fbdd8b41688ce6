#!/bin/sh
# Digits, from data to an endpoint that answers. Extra words go to `raypipe run`: ./run.sh --set train.epochs=5
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
exec raypipe run "$here/pipeline.yaml" --no-wait "$@"
