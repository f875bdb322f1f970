#!/usr/bin/env bash
# The README's first command, on what ctest has built: it must end well, show each adapter's own answer, and leave nothing behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LORAD_BUILD_DIR=$LORAD_BINARY_DIR LORAD_PORT=27433 LORAD_METRICS_PORT=29464

output=$(deploy/quickstart.sh --once 2>&1) || { echo "$output"; exit 1; }
for answer in 'reverse |  rat bread drum' 'arith |  142' 'json |  {"color": "green"' 'sentiment |  negative'; do
  grep -qF "$answer" <<<"$output" || { echo "$output"; echo "missing: $answer"; exit 1; }
done
if pgrep -f -- "--listen 127.0.0.1:$LORAD_PORT" >/dev/null; then echo "the daemon still runs"; exit 1; fi
