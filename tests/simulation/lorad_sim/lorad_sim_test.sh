#!/usr/bin/env bash
# lorad_sim_test.sh LORAD_SIM: what the program says and how it exits.
set -euo pipefail
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $1"; exit 1; }
# exits CODE COMMAND...
exits() {
  local code=0 wanted=$1; shift
  "$@" >"$dir/out" 2>"$dir/err" || code=$?
  [ "$code" = "$wanted" ] || { cat "$dir/out" "$dir/err"; fail "exit $code instead of $wanted: $*"; }
}

exits 0 "$sim" run --workload flood --duration 10 --json "$dir/a.json" --service-csv "$dir/a.csv" --service-svg "$dir/a.svg"
exits 0 "$sim" run --workload flood --duration 10 --json "$dir/b.json"
cmp -s "$dir/a.json" "$dir/b.json" || fail "equal runs differ"
exits 0 "$sim" run --workload flood --duration 10 --json "$dir/b.json" --seed 7
cmp -s "$dir/a.json" "$dir/b.json" && fail "other seeds are equal"
[ "$(head -1 "$dir/a.csv")" = "seconds,t0,t1,t2,t3" ] || fail "head of the CSV"
grep -q '</svg>' "$dir/a.svg" || fail "no picture"

exits 0 "$sim" plan --rate 40 --duration 10 --ttft 1 --pools 16GiB,32GiB --csv "$dir/plan.csv" --svg "$dir/plan.svg"
grep -q enough "$dir/out" || fail "no answer"
[ "$(cut -d, -f1 "$dir/plan.csv" | sort -u | wc -l)" = 3 ] || fail "two pools and a head"
exits 3 "$sim" plan --rate 200 --duration 10 --ttft 0.5 --most-servers 2

exits 0 "$sim" soak --seeds 2 --steps 2000
grep -q 'no invariant broken' "$dir/out" || fail "soak says nothing"

exits 1 "$sim" run --pool-bytes 32MiB
grep -q -- '--pool-bytes' "$dir/err" || fail "the error names no flag"
exits 1 "$sim" run --rate 0
exits 1 "$sim" run --cost /no/such/file
exits 1 "$sim" run --input 5
for command in run plan soak; do exits 0 "$sim" "$command" --help; done
