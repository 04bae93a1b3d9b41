#!/usr/bin/env bash
# An editable install and a wheel find conf/ and the launcher from a folder outside the repository, beside
# packages `conf` and `experiments` of another project, which they neither hide nor use.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
cd "$outside"

fail() { echo "$1"; exit 1; }
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

another_project() {  # another_project FOLDER: packages of the same names, in it
  for name in conf experiments; do
    mkdir -p "$1/$name/variant"
    echo 'OWNER = "another project"' >"$1/$name/__init__.py"
    echo 'broken: [' | tee "$1/$name/config.yaml" >"$1/$name/variant/hybrid.yaml"
  done
}

probe() {  # probe NAME PYTHON_ENVIRONMENT
  "$2/bin/python" -m harness.train --info plugins >plugins.txt
  grep -q HarnessLauncher plugins.txt || fail "$1: the launcher is not found"
  "$2/bin/harness" train variant=hybrid experiment=attention --cfg job >config.txt
  grep -q "cycle" config.txt || fail "$1: conf/ is not found"
  "$2/bin/harness" train 'hydra.searchpath=[file://choices]' variant=mine --cfg job >config.txt
  grep -q "name: mine" config.txt || fail "$1: a user's own folder does not extend conf/"
  "$2/bin/harness" sweep question=alibi scale=xs seed=0 --dry-run >question.txt 2>&1 ||
    { cat question.txt; fail "$1: a question is not found"; }
  grep -q "control (control), alibi" question.txt || fail "$1: a question stands without its control"
  "$2/bin/harness" train tracker=tensorboard --cfg job >config.txt
  grep -q "tensorboard" config.txt || fail "$1: conf/tracker is not found"
  "$2/bin/harness" list >list.txt
  grep -q "hybrid" list.txt || fail "$1: the variants are not listed"
  "$2/bin/harness" guide | grep -q "INCONCLUSIVE" || fail "$1: the guide is not found"
  "$2/bin/harness" guide --schema compare | "$2/bin/python" -m json.tool >schema.txt || fail "$1: no schema is found"
  for name in conf experiments; do
    "$2/bin/python" -c "import $name; assert $name.OWNER == 'another project', $name" ||
      fail "$1: $name of another project is hidden"
  done
  echo "$1: conf/ and the launcher are found, beside another project's conf/"
}

another_project .
mkdir -p choices/variant
printf '# @package _global_\nvariant: {name: mine, touches: []}\n' >choices/variant/mine.yaml
probe editable "$repository/.venv"

# The source archive, and the wheel from it.
"$repository/.venv/bin/python" -m build --outdir built "$repository" >build.txt 2>&1 || { cat build.txt; exit 1; }
"$repository/.venv/bin/python" -m venv wheel-env
# The wheel's own files over the dependencies that are installed already; a path file inside
# that folder (the editable install's) is not read this way.
wheel-env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps built/*.whl
installed=$(site wheel-env)
site "$repository/.venv" >"$installed/dependencies.pth"
top_level=$(cut -d/ -f1 "$installed"/ab_harness-*.dist-info/RECORD | sort -u | grep -v -e '^\.\.$' -e dist-info | xargs)
[ "$top_level" = "harness hydra_plugins" ] || fail "the wheel installs $top_level"
[ -f "$installed/harness/experiments/attention/recompute.py" ] || fail "the wheel has no experiments"
(cd "$repository" && git ls-files harness hydra_plugins && git ls-files conf experiments | sed 's,^,harness/,') |
  grep -v "\.png$" | sort >tracked.txt  # pictures of the README files
cut -d, -f1 "$installed"/ab_harness-*.dist-info/RECORD | sort >wheel.txt
missing=$(comm -23 tracked.txt wheel.txt)
[ -z "$missing" ] || fail "the wheel has not: $missing"
another_project "$installed"
probe wheel wheel-env

wheel-env/bin/harness sweep experiment=attention variant=mha,hybrid scale=xs seed=0 scale.tokens=5120 >sweep.txt 2>&1 ||
  { cat sweep.txt; exit 1; }
PYTHONPATH= wheel-env/bin/python -m harness.experiments.attention.recompute runs/attention >recomputed.txt ||
  { cat recomputed.txt; exit 1; }
echo "wheel: a sweep trains"

wheel-env/bin/harness init project >/dev/null
[ -f project/conf/experiment/mine.yaml ] || fail "wheel: a project of one's own is not written"
echo "wheel: a new project is written, and the guide, lists and schemas are found"
