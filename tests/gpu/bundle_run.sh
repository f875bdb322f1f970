#!/usr/bin/env bash
# Runs the bundle that tests/gpu/run.sh built, on a machine with a GPU. Prints one table, and writes results.json and
# every step's log to the output directory. Steps, in order of worth:
#   device runtime conformance graph golden demo micro sanitizer serve torch
#
#   ./run.sh                          all steps
#   ./run.sh --out DIR conformance    some of them
set -uo pipefail
top=$(cd "$(dirname "$0")" && pwd)
out=results
steps=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    -h|--help) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0"; exit 0 ;;
    *) steps+=("$1"); shift ;;
  esac
done
[ ${#steps[@]} -gt 0 ] || steps=(device runtime conformance graph golden demo micro sanitizer serve torch)
mkdir -p "$out"
out=$(cd "$out" && pwd)
export LORAD_SOURCE_DIR=$top/src LORAD_BINARY_DIR=$top/build

table=()
json=()
failed=false

# step NAME LIMIT_SECONDS COMMAND...: one line of the table; its output goes to NAME.log.
step() {
  local name=$1 limit=$2 start status word
  shift 2
  start=$(date +%s)
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  case $status in
    0) word=passed ;;
    77) word="not here" ;;  # what it needs is not on this machine
    124|137) word="timed out"; failed=true ;;
    *) word=FAILED; failed=true ;;
  esac
  table+=("$(printf '%-24s %-10s %5d s  %s' "$name" "$word" "$(($(date +%s) - start))" "$(tail -n 1 "$out/$name.log" | cut -c1-90)")")
  json+=("{\"step\": \"$name\", \"result\": \"$word\", \"status\": $status, \"seconds\": $(($(date +%s) - start))}")
  echo "${table[-1]}"
}

device() { nvidia-smi && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.mem,clocks.max.sm --format=csv,noheader; }

# Where there is no device its tests are skipped: that is no success here.
runtime() { "$top/bin/cuda_device_test" && "$top/bin/cuda_device_test" | awk '/SKIPPED/ {bad = 1; print} END {exit bad}'; }

golden() { "$top/bin/model_golden_device_test"; }

# The demo's accuracy and the daemon's isolation and hot loading, on the GPU.
demo() {
  export LORAD_TEST_OPTIONS=--backend=cuda
  "$top/bin/integration_demo_test" && "$top/bin/integration_hot_load_test" && "$top/bin/integration_isolation_test"
}

sanitizer() {
  local tool=$1 program=$2
  shift 2
  command -v compute-sanitizer >/dev/null || export PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer
  command -v compute-sanitizer >/dev/null || return 77
  compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 1 "$top/bin/$program" "$@"
}

# Llama 3 8B's shape with weights from a seed, adapters of all seven projections: decode and prefill, and what
# adapters cost. The daemon and its load run on this machine.
serve() {
  local state log port pid
  state=$(mktemp -d)
  log=$out/serve.lorad.log
  "$top/build/server/lorad" --backend=cuda --model "$top/llama3_8b" --load-format dummy --state-dir "$state" \
    --listen 127.0.0.1:0 --metrics-listen '' --log-format json >"$log" 2>&1 &
  pid=$!
  trap 'kill $pid 2>/dev/null; rm -rf "$state"' RETURN
  for _ in $(seq 600); do
    port=$(sed -n '/"event":"serving"/s/.*"grpc_port":\([0-9]*\).*/\1/p' "$log" | head -1)
    [ -n "$port" ] && break
    kill -0 $pid 2>/dev/null || { tail -n 5 "$log"; return 1; }
    sleep 0.5
  done
  for clients in 1 16 64; do
    "$top/bin/lorad-bench" scenario --address "127.0.0.1:$port" --clients "$clients" --distinct 0,1,8,32 --ranks 16 \
      --rounds 2 --duration 8 --warmup 2 --input 900:1100 --output 128:256 --prompts random \
      --json "$out/serve-$clients.json" || return 1
  done
}

torch() { command -v python3 >/dev/null && python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || return 77
          python3 "$top/torch_compare.py" --json "$out/torch.json"; }

export -f device runtime golden demo sanitizer serve torch
export top out

for s in "${steps[@]}"; do
  case $s in
    device) step device 60 bash -c device ;;
    runtime) step runtime 100 bash -c runtime ;;
    conformance) step conformance 300 "$top/bin/kernels_conformance_device_test" ;;
    graph) step graph 200 "$top/bin/cuda_graph_device_test" ;;
    golden) step golden 200 bash -c golden ;;
    demo) step demo 400 bash -c demo ;;
    micro) step micro 500 "$top/bin/bench_cuda" --json "$out/micro.json" ;;
    sanitizer)
      for tool in memcheck racecheck synccheck initcheck; do
        step "sanitizer-$tool" 400 bash -c "sanitizer $tool bench_cuda --smoke"
      done ;;
    serve) step serve 500 bash -c serve ;;
    torch) step torch 200 bash -c torch ;;
    *) echo "unknown step $s" >&2; exit 1 ;;
  esac
done

gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1)
{
  printf '{"date": "%s", "commit": "%s", "gpu": "%s", "steps": [' "$(date -u +%F)" "$(cat "$top/commit" 2>/dev/null)" "$gpu"
  (IFS=,; printf '%s' "${json[*]}")
  printf ']}\n'
} >"$out/results.json"
echo
echo "$gpu, commit $(cat "$top/commit" 2>/dev/null)"
printf '%s\n' "${table[@]}"
[ -f "$out/micro.log" ] && sed -n '/^read /,$p' "$out/micro.log"
$failed && exit 1
exit 0
