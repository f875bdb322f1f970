#!/usr/bin/env bash
# Installs, builds and runs all tests that a plain Debian 12 machine can run, and ends with ctest's summary:
#   1 release build: every test (unit, golden, integration, lint) and a short run of every benchmark
#   2 AddressSanitizer + UBSan: unit and fuzz tests
#   3 ThreadSanitizer: the tests with threads, those of emulated kernels among them
#
#   tests/run.sh            all
#   tests/run.sh --quick    the first part only
set -euo pipefail
cd "$(dirname "$0")/.."

quick=false
[ "${1:-}" = --quick ] && quick=true
jobs=$(nproc)

deploy/install-deps.sh

# build PRESET [TARGET ...]
build() {
  local preset=$1; shift
  echo "== building: $preset"
  cmake --preset "$preset" -DLORAD_TESTS=ON >"build-$preset.log" 2>&1 || { cat "build-$preset.log"; exit 1; }
  rm -f "build-$preset.log"
  NINJA_STATUS='[%f/%t, %es] ' ninja -C "build/$preset" -j "$jobs" "$@" |
    awk 'NR % 25 == 1 || /FAILED|error|warning:/ {print; fflush()} {last=$0} END {print last}'
}

if ! $quick; then
  build asan sanitized_tests
  echo "== testing: asan"
  ctest --test-dir build/asan -L fast --output-on-failure --no-tests=error -j "$jobs"
  build tsan threaded_tests
  echo "== testing: tsan"
  ctest --test-dir build/tsan -L threads --output-on-failure --no-tests=error -j "$jobs"
fi

build release
echo "== testing: release"
ctest --test-dir build/release --output-on-failure --no-tests=error -j "$jobs"
