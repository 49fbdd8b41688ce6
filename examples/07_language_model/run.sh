#!/bin/sh
# A text of your own: TEXT=/folder/input.txt. Unset: input.txt in this folder, e.g. the Shakespeare text of char-rnn.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
if [ -n "${TEXT:-}" ]; then        # a file is meant from here, not from the pipeline file's folder
    folder=$(cd "$(dirname "$TEXT")" && pwd)
    set -- --set "data.root=$folder" --set "data.source.path=$(basename "$TEXT")" "$@"
fi
exec raypipe run "$here/pipeline.yaml" --no-wait "$@"
