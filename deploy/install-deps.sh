#!/usr/bin/env bash
# Installs what building and testing lorad needs, from Debian 12's own packages. As root, or through sudo.
# A second run only looks and is done.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache mold pkg-config git ca-certificates curl
  protobuf-compiler libprotobuf-dev                 # libgrpc++-dev does not pull these
  protobuf-compiler-grpc libgrpc++-dev libgrpc-dev
  golang-github-grpc-ecosystem-grpc-gateway-dev     # google/rpc/*.proto
  libabsl-dev libfmt-dev libspdlog-dev prometheus-cpp-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libicu-dev libssl-dev
  libgtest-dev libgmock-dev libbenchmark-dev
  clang-format-14
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "install-deps: everything is there"
  exit 0
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps: run me as root, or install sudo" >&2; exit 1; }
  sudo=sudo
fi
echo "install-deps: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
  >/tmp/lorad-install-deps.log 2>&1 || { tail -n 40 /tmp/lorad-install-deps.log >&2; exit 1; }
echo "install-deps: done"
