#!/usr/bin/env bash
# register_budgets.sh BUDGETS ARCHITECTURES REPORT...: each kernel of the reports that ptxas wrote (cmake/keep_ptxas_report.sh)
# keeps to its line of BUDGETS, was compiled for each of ARCHITECTURES ("80 90"), and spills nothing where a line cannot
# allow it. With --list as the first argument: prints what the kernels use, and checks nothing.
set -u
list=
[ "${1:-}" = --list ] && { list=1; shift; }
budgets=$1 architectures=$2
shift 2
for report in "$@"; do
  [ -s "$report" ] || { echo "$report is missing: build lorad_cuda"; exit 1; }
done

# kernel architecture registers shared stack spilled, one line for each kernel and architecture.
used() {
  awk '
    /Compiling entry function/ { split($0, part, "\x27"); name = part[2]; arch = part[4]; stack = spilled = 0 }
    /bytes stack frame/ {
      if ($1 > stack) stack = $1
      spilled += $5 + $9
    }
    /: Used [0-9]+ registers/ {
      registers = shared = 0
      for (i = 2; i <= NF; ++i) {
        if ($i ~ /^registers/) registers = $(i - 1)
        if ($i ~ /^smem/) shared = $(i - 2)
      }
      sub(/^sm_/, "", arch)
      print name, arch, registers, shared, stack, spilled
    }' "$@" | c++filt -p | sed -E 's/\(anonymous namespace\):://g; s/lorad::kernels::cuda:://g; s/_GLOBAL__N__[A-Za-z0-9_]*:://g; s/\([A-Za-z_:]+\)([0-9])/\1/g; s/, /,/g'
}

if [ -n "$list" ]; then
  used "$@" | sort | column -t -N kernel,sm,registers,shared,stack,spilled
  exit
fi

used "$@" | awk -v budgets="$budgets" -v architectures="$architectures" '
  function complain(text) { print text; bad = 1 }
  # A glob as a regular expression: only * is special.
  function regex(glob) { gsub(/[][(){}.+?^$|\\]/, "\\\\&", glob); gsub(/\*/, ".*", glob); return "^" glob "$" }
  BEGIN {
    while ((getline line < budgets) > 0) {
      if (line ~ /^(#|$)/) continue
      split(line, field, " ")
      pattern[++lines] = field[1]; registers[lines] = field[2]; shared[lines] = field[3]; stack[lines] = field[4]
    }
    if (lines == 0) complain(budgets " is empty")
  }
  {
    seen[$1] = seen[$1] " " $2
    for (i = 1; i <= lines && $1 !~ regex(pattern[i]); ++i) {}
    if (i > lines) { complain($1 " has no budget"); next }
    hit[i] = 1
    what = $1 " at sm_" $2 ": "
    if ($3 > registers[i]) complain(what $3 " registers of " registers[i])
    if ($4 > shared[i]) complain(what $4 " bytes of shared memory of " shared[i])
    if ($5 > stack[i]) complain(what $5 " bytes of stack of " stack[i])
    if ($6 > 0 && $2 < 100) complain(what "spills " $6 " bytes")
  }
  END {
    wanted = split(architectures, want, " ")
    for (name in seen) {
      for (i = 1; i <= wanted; ++i) if (index(seen[name] " ", " " want[i] " ") == 0) complain(name " was not compiled for sm_" want[i])
    }
    for (i = 1; i <= lines; ++i) if (!(i in hit) && pattern[i] != "*") complain("no kernel is called " pattern[i])
    if (length(seen) == 0) complain("no kernels in the reports")
    exit bad
  }'
