#!/usr/bin/env bash
# Files stay short, tests are run, builds are portable, nothing is left half done.
set -u
bad=0
complain() { echo "$1"; bad=1; }

while read -r file; do
  lines=$(wc -l <"$file")
  [ "$lines" -le 600 ] || complain "$file has $lines lines (600 at most)"
done < <(git ls-files -- '*.h' '*.cc' '*.cu' '*.cuh' '*.py' '*.sh' '*.proto')

while read -r file; do
  git grep -qF "$(basename "$file")" -- '*CMakeLists.txt' || complain "$file is in no CMakeLists.txt"
done < <(git ls-files -- 'tests/**/*_test.cc')

while read -r file; do
  grep -qwF "$(basename "$file")" kernels/cuda/CMakeLists.txt || complain "$file is not in kernels/cuda/CMakeLists.txt"
done < <(git ls-files -- 'kernels/cuda/*.cu' 'kernels/cuda/*.cc')

while read -r file; do
  case $file in
    *_inl.h) ;;  # may be included once for each instruction set
    *.h | *.cuh) grep -q '^#pragma once' "$file" || complain "$file lacks #pragma once" ;;
  esac
done < <(git ls-files)

hits=$(git grep -nE 'march=native' -- '*.txt' '*.cmake' '*.json' '*.sh' | grep -v '^tests/lint/')
[ -z "$hits" ] || complain "dispatch at run time instead: $hits"
hits=$(git grep -nwE 'TODO|FIXME|XXX' -- '*.h' '*.cc' '*.cu' '*.cuh' '*.py' '*.sh' '*.proto' | grep -v '^tests/lint/')
[ -z "$hits" ] || complain "unfinished: $hits"
hits=$(git ls-files | grep -E '(^|/)(utils?|common|managers?|helpers?)(\.|/|_)')
[ -z "$hits" ] || complain "say what it is instead: $hits"
exit $bad
