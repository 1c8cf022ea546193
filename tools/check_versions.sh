#!/usr/bin/env bash
# Installs the package under several Pythons and runs the tests of models, parity and swap-in there.
#
#   tools/check_versions.sh python3.9 python3.10 python3.11    LAVIS' own versions (transformers 4.26)
#   MODERN=1 tools/check_versions.sh python3.11 python3.12     today's versions (requirements/modern.txt)
#   MODERN=1 WITH='transformers==4.53.3' tools/check_versions.sh python3.11
#
# Environments are made below $WHERE (default .versions) and used again; one takes some gigabytes.
set -eu -o pipefail
cd "$(dirname "$0")/.."
WHERE=${WHERE:-.versions}
TESTS=(tests/models tests/parity tests/test_swap_in.py tests/test_compat.py)
[ $# -gt 0 ] || { sed -n '2,8p' "$0"; exit 2; }

for python in "$@"; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  folder=$WHERE/$version${MODERN:+-modern}${WITH:+-$WITH}
  if [ ! -e "$folder/ready" ]; then
    "$python" -m venv --clear "$folder"
    pip=("$folder/bin/python" -m pip install -q)
    "${pip[@]}" -U pip
    if [ -n "${MODERN:-}" ]; then
      "${pip[@]}" -r requirements/modern.txt ${WITH:+"$WITH"} pytest hypothesis
      "${pip[@]}" --no-deps --ignore-requires-python salesforce-lavis==1.0.2 .
    else
      "${pip[@]}" '.[dev]' ${WITH:+"$WITH"}
    fi
    touch "$folder/ready"
  fi
  echo "== Python $version${MODERN:+, new libraries}${WITH:+, $WITH}"
  PYTHONPATH=$PWD "$folder/bin/python" -m pytest -q "${TESTS[@]}"
done
