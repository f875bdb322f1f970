#!/usr/bin/env bash
# Folders depend one way, and the transport stays at the edge. Prints each offending line; fails if there is one.
set -u
bad=0

# forbid WHY PATTERN FILE...: no line of FILEs may match PATTERN.
forbid() {
  local why=$1 pattern=$2; shift 2
  [ $# -gt 0 ] || { echo "include_rules: no files for: $why"; bad=1; return; }
  local hits
  hits=$(grep -nE "$pattern" "$@" /dev/null)
  if [ -n "$hits" ]; then printf '%s:\n%s\n\n' "$why" "$hits"; bad=1; fi
}

sources() { git ls-files -- "$@" | grep -E '\.(h|cc|cu|cuh)$'; }

forbid "kernels use nothing of ours but memory/base" '#include "(memory/[^b]|model/|scheduler/|server/|client/)' $(sources kernels)
forbid "memory uses nothing else of ours" '#include "(kernels|model|scheduler|server|client)/' $(sources memory)
forbid "model uses kernels and memory only" '#include "(scheduler|server|client)/' $(sources model)
forbid "scheduler uses memory only" '#include "(kernels|model|server|client)/' $(sources scheduler)
forbid "the scheduler is pure: no thread, lock, clock or I/O" \
  '#include <(thread|mutex|shared_mutex|condition_variable|atomic|chrono|fstream|iostream|cstdio|random)>|::now\(' $(sources scheduler)
forbid "client uses proto only" '#include "(kernels|memory|model|scheduler|server)/' $(sources client)
forbid "no parent-relative includes" '#include "\.\./' $(sources '*')
edge=$(sources server | grep -vE 'server/(inference_service|adapters_service|admin_service|adapter_reply|pool_reply|upload_call|watch_call|caller|status_conversion|request_parsing|model_facts|reply|daemon)\.')
forbid "protobuf and gRPC stay in the service files" '\.pb\.h|#include <grpc' $edge $(sources kernels memory model scheduler)
forbid "CUDA headers stay in kernels/cuda" '#include [<"](cuda|cublas|nccl)' $(sources '*' | grep -vE '^(kernels/cuda|tests/unit/kernels/cuda_device)/')
forbid "only kernels/cuda/gpu.h knows a file of the tests" '#include "tests/' $(sources '*' | grep -vE '^(tests/|kernels/cuda/gpu\.h$)')
exit $bad
