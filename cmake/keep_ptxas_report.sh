#!/usr/bin/env bash
# keep_ptxas_report.sh COMPILER ... -o OBJECT ...: compiles, and keeps what ptxas says of each kernel's registers and spills in
# OBJECT.ptxas instead of on the screen. tests/lint/register_budgets.sh reads it.
set -u
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
report=$object.ptxas
"$@" 2>"$report.all"
status=$?
grep -vE '^(ptxas info|    [0-9]+ bytes stack frame)' "$report.all" >&2
grep -E '^(ptxas info|    [0-9]+ bytes stack frame)' "$report.all" >"$report"
rm -f "$report.all"
exit $status
