#!/usr/bin/env bash
# From a bare Debian 12 machine to mixed-adapter completions: installs, builds, starts lorad on the demo, shows a few requests
# of different adapters running in one batch, and serves until Ctrl-C.
#
#   deploy/quickstart.sh          go on serving afterwards
#   deploy/quickstart.sh --once   stop after the showcase
#
# LORAD_BUILD_DIR: where to build [build/release]. LORAD_PORT, LORAD_METRICS_PORT: [7433, 9464].
set -euo pipefail
cd "$(dirname "$0")/.."

once=false
case "${1:-}" in
  --once) once=true ;;
  "") ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 1 ;;
esac
build=${LORAD_BUILD_DIR:-build/release}
port=${LORAD_PORT:-7433}
metrics_port=${LORAD_METRICS_PORT:-9464}
state=$(mktemp -d)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/4 Installing what the build needs"
deploy/install-deps.sh

say "2/4 Building (a few minutes the first time)"
cmake --preset release -B "$build" >"$state/configure.log" || { cat "$state/configure.log"; exit 1; }
NINJA_STATUS='[%f/%t, %es] ' ninja -C "$build" lorad loractl

say "3/4 Starting lorad on the demo model with its adapters"
adapters=()
for dir in demo/adapters/*/; do adapters+=(--adapter "$(basename "$dir")=$dir"); done
"$build/server/lorad" --model demo/model --model-name lorad-demo --state-dir "$state/store" --pool-bytes 256MiB \
  --listen "127.0.0.1:$port" --metrics-listen "127.0.0.1:$metrics_port" "${adapters[@]}" \
  >"$state/lorad.log" 2>&1 &
daemon=$!
stop() {
  kill -TERM "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
  rm -rf "$state"
}
trap stop EXIT
trap 'exit 130' INT TERM

ctl() { "$build/client/loractl" --address "127.0.0.1:$port" "$@"; }
healthy=false
for _ in $(seq 300); do
  if ! kill -0 "$daemon" 2>/dev/null; then break; fi
  if ctl health >/dev/null 2>&1; then healthy=true; break; fi
  sleep 0.1
done
if ! $healthy; then
  echo "lorad did not become healthy:" >&2
  cat "$state/lorad.log" >&2
  exit 1
fi
ctl model
ctl adapters list

say "4/4 One batch, different adapters, different answers"
for dir in demo/adapters/*/; do
  name=$(basename "$dir")
  prompt=$(sed -n '1s/^{"prompt": "\(.*\)", "expected": .*/\1/p' "demo/eval/$name.jsonl")
  prompt=$(printf '%b' "$prompt")
  printf '\033[2m%s\033[0m\n' "$prompt"
  ctl generate --temperature 0 --max-tokens 48 --base --adapter "$name" "$prompt"
  echo
done
echo "All adapters at once, each with its own answer to one prompt:"
flags=()
for dir in demo/adapters/*/; do flags+=(--adapter "$(basename "$dir")"); done
ctl generate --temperature 0 --max-tokens 24 "${flags[@]}" "Words: drum bread rat
Reversed:"
ctl pool

if $once; then exit 0; fi
say "lorad is serving on 127.0.0.1:$port (metrics: http://127.0.0.1:$metrics_port/metrics). Try, in another terminal:"
cat <<TEXT
  $build/client/loractl --address 127.0.0.1:$port generate --adapter json 'Record: name: Ann, age: 41
  JSON:'
  $build/client/loractl --address 127.0.0.1:$port adapters upload /path/to/peft/directory --id my-adapter
  $build/client/loractl --address 127.0.0.1:$port top
Ctrl-C drains and stops it.
TEXT
wait "$daemon"
