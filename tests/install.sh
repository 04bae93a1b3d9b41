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
  grep -q "global_every" config.txt || { echo "$1: conf/ is not found"; exit 1; }
  echo "$1: conf/ and the launcher are found"
}

probe editable "$repository/.venv"

"$repository/.venv/bin/python" -m build --wheel --outdir wheel "$repository" >build.txt 2>&1 || { cat build.txt; exit 1; }
python3 -m venv --system-site-packages wheel-env
"$repository/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >packages.txt
# The wheel's own files, over the dependencies that are installed already.
wheel-env/bin/python -m pip install --quiet --no-deps wheel/*.whl
site=$(wheel-env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$(cat packages.txt)" -maxdepth 1 -name '__editable__*' -prune -o -maxdepth 0 -print >"$site/dependencies.pth"
probe wheel wheel-env
