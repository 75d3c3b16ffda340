#!/usr/bin/env bash
# Starts a SLURM cluster of virtual nodes with fake GPUs on this machine: Debian or Ubuntu, as root, no systemd.
# Idempotent. slurm-down.sh stops it. Exit code 3 where the packages cannot be installed.
#   SLURM_BASE   folder of everything it writes       ${TMPDIR:-/tmp}/slurm-test
#   SLURM_ACCT   dbd (accounting, needed by sacct) or none                  dbd
#   SLURM_PORT   first of the ports that it listens on                    16817
#   SLURM_NODES 4 · SLURM_NODE_CPUS 4 · SLURM_NODE_MEM 4000 (MB) · SLURM_NODE_GPUS 2
set -euo pipefail
base=${SLURM_BASE:-${TMPDIR:-/tmp}/slurm-test} accounting=${SLURM_ACCT:-dbd} port=${SLURM_PORT:-16817}
nodes=${SLURM_NODES:-4} cpus=${SLURM_NODE_CPUS:-4} memory=${SLURM_NODE_MEM:-4000} gpus=${SLURM_NODE_GPUS:-2}
dbd_port=$((port + 1)) sql_port=$((port + 2)) node_port=$((port + 10))
export SLURM_CONF="$base/etc/slurm.conf"
cd /

say() { printf 'slurm-up: %s\n' "$*"; }
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
wait_for() { # WHAT SECONDS COMMAND…
  local what=$1 tries=$(($2 * 10))
  shift 2
  for ((i = 0; i < tries; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  echo "slurm-up: $what did not come up; see $base/log" >&2
  return 1
}

install_packages() {
  local packages=(slurmctld slurmd slurm-client munge) policy=/usr/sbin/policy-rc.d made=0 code=0
  [ "$accounting" = none ] || packages+=(slurmdbd mariadb-server)
  dpkg -s "${packages[@]}" >/dev/null 2>&1 && return 0
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 3
  say "apt-get install ${packages[*]}"
  # No daemon may start on installation.
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1; }
  { timeout 300 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 900 \
    apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$base/log/apt.log" 2>&1 || code=3
  [ $made = 0 ] || rm -f $policy
  return $code
}

start_munge() {
  [ -s "$base/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$base/munge/key")
  alive "$base/run/munged.pid" && return 0
  rm -f "$base/run/munge.socket"
  munged --socket="$base/run/munge.socket" --key-file="$base/munge/key" --seed-file="$base/munge/seed" \
    --pid-file="$base/run/munged.pid" --log-file="$base/log/munged.log" >>"$base/log/munged.out" 2>&1
  wait_for munge 10 munge -S "$base/run/munge.socket" -n
}

sql() { mariadb --no-defaults -S "$base/run/sql.sock" -uroot "$@"; }

start_mariadb() {
  alive "$base/run/mariadbd.pid" && return 0
  [ -d "$base/sql/data/mysql" ] || mariadb-install-db --no-defaults --datadir="$base/sql/data" --user=root \
    --auth-root-authentication-method=normal --skip-test-db >"$base/log/sql-install.log" 2>&1
  rm -f "$base/run/mariadbd.pid"
  setsid mariadbd --no-defaults --user=root --datadir="$base/sql/data" --socket="$base/run/sql.sock" \
    --pid-file="$base/run/mariadbd.pid" --bind-address=127.0.0.1 --port="$sql_port" --skip-name-resolve \
    --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 \
    --log-error="$base/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
  wait_for mariadb 60 mariadb-admin --no-defaults -S "$base/run/sql.sock" -uroot ping
  sql -e "create database if not exists slurm_acct_db;
    create user if not exists slurm@'127.0.0.1' identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@'127.0.0.1';"
}

start_slurmdbd() {
  (umask 077 && cat >"$base/etc/slurmdbd.conf") <<X
AuthType=auth/munge
AuthInfo=socket=$base/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
LogFile=$base/log/slurmdbd.log
PidFile=$base/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$sql_port
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
X
  alive "$base/run/slurmdbd.pid" && return 0
  rm -f "$base/run/slurmdbd.pid"
  slurmdbd >>"$base/log/slurmdbd.out" 2>&1
  wait_for slurmdbd 20 timeout 5 sacctmgr -n -i show cluster
  timeout 10 sacctmgr -n show cluster test format=cluster | grep -q test ||
    timeout 10 sacctmgr -i add cluster test >/dev/null || true
}

accounting_lines() {
  [ "$accounting" = none ] && echo "AccountingStorageType=accounting_storage/none" && return
  printf '%s\n' AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=127.0.0.1 \
    "AccountingStoragePort=$dbd_port" "AccountingStoragePass=$base/run/munge.socket"
}

configure() {
  local host range="[1-$nodes]" ports="[$node_port-$((node_port + nodes - 1))]" gpu
  host=$(hostname -s)
  [ "$nodes" = 1 ] && range=1 ports=$node_port
  cat >"$SLURM_CONF" <<X
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job starts again once its credential has expired.
AuthInfo=socket=$base/run/munge.socket,cred_expire=5
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
SlurmctldPidFile=$base/run/slurmctld.pid
SlurmdPidFile=$base/run/slurmd-%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=${SLURM_KILL_WAIT:-5}
MinJobAge=600
JobRequeue=1
# The virtual nodes have more cores than a small machine.
SlurmdParameters=config_overrides
InactiveLimit=0
Waittime=0
GresTypes=gpu
$(accounting_lines)
NodeName=n$range NodeHostname=$host NodeAddr=127.0.0.1 Port=$ports CPUs=$cpus RealMemory=$memory Gres=gpu:$gpus State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
X
  echo "CgroupPlugin=cgroup/v1" >"$base/etc/cgroup.conf"
  # slurmd counts GPUs by their device files; any file that exists will do.
  echo "AutoDetect=off" >"$base/etc/gres.conf"
  for ((gpu = 0; gpu < gpus; gpu++)); do
    [ -e "$base/dev/gpu$gpu" ] || mknod "$base/dev/gpu$gpu" c 1 3 2>/dev/null || touch "$base/dev/gpu$gpu"
    echo "NodeName=n$range Name=gpu File=$base/dev/gpu$gpu" >>"$base/etc/gres.conf"
  done
}

start_slurm() {
  if ! alive "$base/run/slurmctld.pid"; then
    rm -f "$base/run/slurmctld.pid"
    slurmctld >>"$base/log/slurmctld.out" 2>&1
    wait_for slurmctld 10 timeout 5 sinfo -h
  fi
  for ((i = 1; i <= nodes; i++)); do
    alive "$base/run/slurmd-n$i.pid" && continue
    mkdir -p "$base/spool/n$i"
    rm -f "$base/run/slurmd-n$i.pid"
    slurmd -N "n$i" >>"$base/log/slurmd-n$i.out" 2>&1
  done
  # A drained node stays drained over a restart.
  timeout 5 sinfo -h -o %T | grep -qE 'drain|down|inval' &&
    { sleep 0.3 && timeout 5 scontrol update nodename="$(timeout 5 sinfo -h -o %N)" state=resume || true; }
  wait_for nodes 30 all_nodes_ready
}

all_nodes_ready() { [ "$(timeout 5 sinfo -h -N -o %T | grep -cE 'idle|mixed|allocated')" = "$nodes" ]; }

mkdir -p "$base"/{etc,run,log,state,spool,munge,sql,dev}
chmod 755 "$base" "$base"/{etc,run}
chmod 700 "$base/sql"
chmod 711 "$base/munge"
install_packages || { echo "slurm-up: SLURM's packages cannot be installed here (Debian, root, apt)" >&2; exit 3; }
start_munge
[ "$accounting" = none ] || start_mariadb
configure
[ "$accounting" = none ] || start_slurmdbd
start_slurm
say "$nodes nodes are up, accounting: $accounting"
echo "export SLURM_CONF=$SLURM_CONF"
