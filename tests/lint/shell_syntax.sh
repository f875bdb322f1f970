#!/usr/bin/env bash
# Shell scripts parse and carry the run bit.
set -u
bad=0
while read -r file; do
  bash -n "$file" || bad=1
  [ -x "$file" ] || { echo "$file has no run bit"; bad=1; }
done < <(git ls-files -- '*.sh' .ci/run)
exit $bad
