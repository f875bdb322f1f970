#!/usr/bin/env bash
# Every C++ file is as clang-format 14 would write it (other versions differ in details).
set -u
tool=$(command -v clang-format-14) || { echo "clang-format-14 is not installed (deploy/install-deps.sh)"; exit 1; }
git ls-files -z -- '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 "$tool" --dry-run -Werror 2>&1 | head -n 40
exit "${PIPESTATUS[1]}"
