#!/usr/bin/env bash
# tests/e2e/clients/install.sh FOLDER: the clients that the tests use, each generation in a virtual environment of its
# own: FOLDER/current and FOLDER/old, and FOLDER/page with what drives a browser. What is there already is kept until
# the lists change.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:?usage: install.sh FOLDER}

# install NAME LIST LIST_WITH_DEPENDENCIES
install() {
  local environment=$folder/$1 stamp=$folder/$1/installed wanted
  wanted=$(cat "$here/$2" "$here/$3")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  rm -rf "$environment"
  mkdir -p "$folder"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$here/$3"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/$2"
  printf '%s\n' "$wanted" >"$stamp"
}

install current current.txt with_dependencies.txt
install old old.txt with_dependencies.txt
install page page.txt page_with_dependencies.txt
