#!/usr/bin/env bash
# scheduler.sh [BUILD]: makes the simulated part of the scheduler's page and its pictures anew. BUILD: a build
# directory with simulation_evidence (build/release). About five minutes; the same figures on any machine.
set -euo pipefail
cd "$(dirname "$0")"
build=${1:-../../build/release}
name=2026-11-24-scheduler
new=$(mktemp)
trap 'rm -f "$new"' EXIT
sed '/<!-- simulated: begin -->/q' "$name.md" >"$new"
"$build/tests/simulation/simulation_evidence" . "$name" >>"$new"
sed -n '/<!-- simulated: end -->/,$p' "$name.md" >>"$new"
cat "$new" >"$name.md"
