#!/usr/bin/env bash
# tests/e2e/clients/install.sh FOLDER: the clients that the tests use, each generation in a virtual environment of its
# own: FOLDER/current and FOLDER/old. What is there already is kept until the lists change.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?usage: install.sh FOLDER}

for generation in current old; do
  environment=$folder/$generation stamp=$folder/$generation/installed
  wanted=$(cat "$here/$generation.txt" "$here/with_dependencies.txt")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then continue; fi
  rm -rf "$environment"
  mkdir -p "$folder"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$here/with_dependencies.txt"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/$generation.txt"
  printf '%s\n' "$wanted" >"$stamp"
done
