#!/usr/bin/env bash
# An editable install and a wheel find conf/ and the launcher from a folder outside the repository.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
cd "$outside"

probe() {  # probe NAME PYTHON_ENVIRONMENT
  "$2/bin/python" -m harness.train --info plugins >plugins.txt
  grep -q HarnessLauncher plugins.txt || { echo "$1: the launcher is not found"; exit 1; }
  "$2/bin/harness" train variant=hybrid experiment=attention --cfg job >config.txt
  grep -q "cycle" config.txt || { echo "$1: conf/ is not found"; exit 1; }
  echo "$1: conf/ and the launcher are found"
}

probe editable "$repository/.venv"

"$repository/.venv/bin/python" -m build --wheel --outdir wheel "$repository" >build.txt 2>&1 || { cat build.txt; exit 1; }
"$repository/.venv/bin/python" -m venv wheel-env
# The wheel's own files over the dependencies that are installed already; a path file inside
# that folder (the editable install's) is not read this way.
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
wheel-env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps wheel/*.whl
site "$repository/.venv" >"$(site wheel-env)/dependencies.pth"
probe wheel wheel-env
