#!/bin/sh
# MNIST from the public download, or from MNIST_ROOT: a folder or s3:// prefix that holds its four .gz files.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/../../.venv/bin" # raypipe from PATH, or else from this checkout
case "${MNIST_ROOT:-}" in
"") ;;
*://*) set -- --set "data.root=$MNIST_ROOT" "$@" ;;
*) set -- --set "data.root=$(cd "$MNIST_ROOT" && pwd)" "$@" ;; # a folder is meant from here, not from the file's
esac
exec raypipe run "$here/pipeline.yaml" --no-wait "$@"
