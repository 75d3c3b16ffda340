#!/usr/bin/env bash
# Stops exactly what slurm-up.sh started in $SLURM_BASE, by its pid files. --wipe deletes the folder too.
set -uo pipefail
base=${SLURM_BASE:-${TMPDIR:-/tmp}/slurm-test}
export SLURM_CONF="$base/etc/slurm.conf"

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

end_jobs() {
  timeout 10 squeue -h -o %A 2>/dev/null | sort -u | xargs -r timeout 10 scancel -s KILL -f 2>/dev/null
  for ((i = 0; i < 30; i++)); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && return
    sleep 0.2
  done
}

stop() { # PIDFILE
  alive "$1" || return 0
  local pid
  pid=$(cat "$1")
  kill -TERM "$pid" 2>/dev/null
  for ((i = 0; i < 150; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null && echo "slurm-down: $(basename "$1" .pid) had to be killed"
  rm -f "$1"
}

alive "$base/run/slurmctld.pid" && end_jobs
for file in "$base"/run/slurmd-*.pid "$base"/run/{slurmctld,slurmdbd,mariadbd,munged}.pid; do
  stop "$file"
done
[ "${1:-}" = --wipe ] && rm -rf "$base"
exit 0
