#!/usr/bin/env bash
# Tests and measures the CUDA backend on a real GPU. Builds a bundle that needs nothing from the machine it runs on but
# a CUDA driver (and, for the base GEMMs of many rows, the toolkit's libcublasLt; compute-sanitizer if it is there),
# and runs it if this machine has a GPU.
#
#   tests/gpu/run.sh                  build build/gpu-bundle, run it here if there is a GPU
#   tests/gpu/run.sh --bundle DIR     build into DIR only; then, on the machine with the GPU: DIR/run.sh [--out DIR] [STEP ...]
#
# Needs nvcc (CUDA 12.4 or later) to build.
set -euo pipefail
cd "$(dirname "$0")/../.."

bundle=build/gpu-bundle
build_only=false
while [ $# -gt 0 ]; do
  case $1 in
    --bundle) bundle=${2:?--bundle needs a directory}; build_only=true; shift 2 ;;
    -h|--help) sed -n '2,/^set/{/^set/d;s/^# \?//;p}' "$0"; exit 0 ;;
    *) echo "unknown argument $1 (see --help)" >&2; exit 1 ;;
  esac
done

deploy/install-deps.sh
targets=(lorad loractl lorad-bench bench_cuda cuda_device_test kernels_conformance_device_test cuda_graph_device_test
         model_golden_device_test integration_demo_test integration_hot_load_test integration_isolation_test)
cmake --preset cuda -DLORAD_TESTS=ON >/dev/null
ninja -C build/cuda "${targets[@]}"

rm -rf "$bundle"
mkdir -p "$bundle"/{libexec,lib,build/server,build/client,bin,src/tests}

# programs NAME=PATH ...: the real program goes to libexec/, with every library it uses and the C library's loader
# beside it; a script that starts it by that loader goes to PATH. So an older distribution on the target does not matter.
loader=
add_program() {
  local program=$1 place=$2 name depth
  name=$(basename "$program")
  cp "$program" "$bundle/libexec/$name"
  # The driver's library is the target's own.
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | grep -v 'libcuda\.so' |
    while read -r library; do cp -nL "$library" "$bundle/lib/" 2>/dev/null || true; done
  loader=$(ldd "$program" | awk '$1 ~ /ld-linux/ {print $1}')
  cp -nL "$loader" "$bundle/lib/" 2>/dev/null || true
  depth=$(dirname "$place" | sed 's#[^/][^/]*#..#g')
  cat >"$bundle/$place" <<SCRIPT
#!/bin/sh
top=\$(cd "\$(dirname "\$0")/$depth" && pwd)
cuda="/usr/local/cuda/lib64:/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu"
exec "\$top/lib/$(basename "$loader")" --library-path "\$top/lib:\${LD_LIBRARY_PATH:-}:\$cuda" "\$top/libexec/$name" "\$@"
SCRIPT
  chmod +x "$bundle/$place"
}
find_program() { find build/cuda -type f -name "$1" -perm -u+x | head -1; }

add_program "$(find_program lorad)" build/server/lorad
add_program "$(find_program loractl)" build/client/loractl
for target in "${targets[@]:2}"; do add_program "$(find_program "$target")" "bin/$target"; done
cp -r demo "$bundle/src/demo"
cp -r tests/golden "$bundle/src/tests/golden"
cp -r tests/gpu/llama3_8b tests/gpu/torch_compare.py "$bundle/"
cp tests/gpu/bundle_run.sh "$bundle/run.sh"
git rev-parse --short HEAD >"$bundle/commit"
echo "bundle: $bundle ($(du -sh "$bundle" | cut -f1))"

if $build_only; then exit 0; fi
if ! nvidia-smi >/dev/null 2>&1; then
  echo "no GPU here: copy $bundle to a machine that has one and start its run.sh"
  exit 0
fi
exec "$bundle/run.sh" --out build/gpu-results
