#!/usr/bin/env bash
# Runs the tests, after setting up what they need: bash launch/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up train networkx test
exec "$VENV/bin/python" -m pytest "$@"
