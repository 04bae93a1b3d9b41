#!/usr/bin/env bash
# How sweep.tar.gz was made, for reference: it is frozen, and is not made again. As root, in namespaces of its
# own, so that no path, host, process or boot of the machine gets into a record. HARNESS: the program.
set -euo pipefail
if [ "${1:-}" != inside ]; then exec unshare --mount --uts --pid --fork --mount-proc "$0" inside; fi
hostname neutral
work=$(mktemp -d)
echo 00000000-0000-0000-0000-000000000000 > "$work/boot"
mount --bind "$work/boot" /proc/sys/kernel/random/boot_id
mkdir -p /srv/golden "$work/golden" && mount --bind "$work/golden" /srv/golden && cd /srv/golden
unfinished=runs/golden/xs/short/seed2
"$HARNESS" sweep $(cat "$COMMAND") & driver=$!
# The worker of one run is killed between its second checkpoint and its third; the driver gives the run up.
until [ -e $unfinished/checkpoints/00000040.manifest.json ]; do kill -0 $driver; sleep 0.001; done
kill -9 "$(sed 's/.*"pid": \([0-9]*\).*/\1/' $unfinished/worker.lock)"
wait $driver || true
sed -i 's#path: /.*/conf#path: /opt/ab-harness/conf#; s#/tmp/ab-harness-[a-z0-9_]*#/tmp/ab-harness#' runs/golden/.hydra/multirun.yaml
rm runs/golden/report.html  # large, and drawn again from the rest
tar --create --owner=0 --group=0 --numeric-owner --sort=name --mtime=@0 runs | gzip -9n > "$OUT"
