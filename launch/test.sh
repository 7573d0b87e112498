#!/usr/bin/env bash
# Runs the tests, after setting up what they need: bash launch/test.sh [PYTEST ARGUMENTS]
# TEST_PROCESSES is how many run at a time; 0 runs them in this one.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/setup.sh
set_up train networkx test
# Two processes: compiling is most of the time, and half of it waits.
exec "$VENV/bin/python" -m pytest -n "${TEST_PROCESSES:-2}" "$@"
