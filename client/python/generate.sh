#!/bin/sh
# Generates lorad/v1/*_pb2*.py from proto/. Needs grpcio-tools (pip), or protoc with grpc_python_plugin (Debian:
# protobuf-compiler, protobuf-compiler-grpc). PYTHON names the interpreter; default python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
proto=$(cd "$here/../../proto" && pwd)
python=${PYTHON:-python3}
cd "$proto"
set -- lorad/v1/inference.proto lorad/v1/adapters.proto lorad/v1/admin.proto
if "$python" -c 'import grpc_tools' 2>/dev/null; then
  "$python" -m grpc_tools.protoc -I. --python_out="$here" --pyi_out="$here" --grpc_python_out="$here" "$@"
elif command -v grpc_python_plugin >/dev/null && command -v protoc >/dev/null; then
  protoc -I. --python_out="$here" --grpc_python_out="$here" \
    --plugin=protoc-gen-grpc_python="$(command -v grpc_python_plugin)" "$@"
else
  echo "generate.sh: neither grpcio-tools nor protoc with grpc_python_plugin found" >&2
  exit 1
fi
touch "$here/lorad/v1/__init__.py"
