#!/bin/sh
# Your own torch network, then a Keras one (pip install 'raypipe[keras]'). Extra words go to both `raypipe run`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
raypipe run "$here/pipeline.yaml" --no-wait "$@"
raypipe run "$here/keras.yaml" --no-wait "$@"
