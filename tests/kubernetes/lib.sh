# shellcheck shell=bash
# What all scripts here share: where things are, and how processes are started, entered and found again. Sourced, not run.
# shellcheck disable=SC2034  # used where it is sourced
set -euo pipefail
HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
KUBE_DIR=$(realpath -m "${KUBE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/beeline-kube}")
KUBE_STATE=$(realpath -m "${KUBE_STATE:-$KUBE_DIR/clusters/default}")
export KUBE_DIR KUBE_STATE
BIN=$KUBE_DIR/bin PKG=$KUBE_DIR/pkg IMG=$KUBE_DIR/img
ETC=$KUBE_STATE/etc RUN=$KUBE_STATE/run LOG=$KUBE_STATE/log VAR=$KUBE_STATE/var
PKI=$ETC/pki
export PATH=$BIN:$PKG/usr/bin:$PKG/usr/sbin:$PATH:/usr/sbin:/sbin
# one cgroup name and one environment mark a cluster, so that down.sh finds all that is ours and nothing else
TAG=beeline-kube-$(printf %s "$KUBE_STATE" | cksum | cut -d' ' -f1)
WAIT=${WAIT:-120}   # seconds up.sh waits for any one thing; raise it on a slow machine

CP_IP=172.31.0.10 SVC_CIDR=10.96.0.0/16 POD_CIDR=10.244.0.0/16
SVC6_CIDR=fd00:96::/112 POD6_CIDR=fd00:244::/56
node_ip() { echo "172.31.0.$((10 + $1))"; }
node_ip6() { echo "fd00:31::$((10 + $1))"; }

T0=${EPOCHREALTIME//[^0-9]/}
say() { local us=$((${EPOCHREALTIME//[^0-9]/} - T0)); printf '%4d.%ds  %s\n' $((us / 1000000)) $((us / 100000 % 10)) "$*"; }
die() { echo "${0##*/}: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "must run as root"

# lock FILE: one setup, up or down of its directory at a time; children must not inherit fd 9, or they would hold the lock for ever
lock() { mkdir -p "${1%/*}"; exec 9>"$1"; flock -n 9 || { say "waiting for another run: $1"; flock 9; }; }
# Clusters that run at once share what there is once a machine: the first one makes it, the last one takes it back.
SHARED=$KUBE_DIR/shared
lock_shared() { mkdir -p "$SHARED"; exec 8>"$SHARED.lock"; flock 8; }
unlock_shared() { exec 8>&-; }

# A PID file holds the PID and its start time: after a reboot the PID alone may be somebody else's.
pid() { local p; read -r p _ <"$RUN/$1.pid" && echo "$p"; }
alive() {
  local p born stat
  read -r p born 2>/dev/null <"$RUN/$1.pid" || return 1
  read -r stat 2>/dev/null <"/proc/$p/stat" || return 1
  read -ra stat <<<"${stat##*) }"
  [ "${stat[19]}" = "$born" ] && [ "${stat[0]}" != Z ]
}
# start NAME CMD...: detached, with a PID file and a log; nothing if it runs already
start() {
  local n=$1; shift
  alive "$n" && return
  rm -f "$RUN/$n.pid"
  # shellcheck disable=SC2016  # expanded by the inner bash, whose PID CMD keeps
  BEELINE_KUBE=$TAG setsid -f bash -c 'read -ra s </proc/$$/stat; echo "$$ ${s[21]}" >"$0.new"; mv "$0.new" "$0"; exec "$@"' \
    "$RUN/$n.pid" "$@" </dev/null >"$LOG/$n.log" 2>&1 9>&-
  wait_for "$n to start" test -s "$RUN/$n.pid"
}
wait_for() {
  local what=$1 end=$((SECONDS + WAIT)); shift
  until "$@" >/dev/null 2>&1 9>&-; do
    [ $SECONDS -lt $end ] || die "gave up waiting $WAIT s for $what; logs are in $LOG"
    sleep .1
  done
}

# enter a network namespace (underlay, cp, nodeN); enter a node as a whole; talk to the API server
net() { nsenter -t "$(pid "$1")" -n "${@:2}"; }
in_node() { nsenter -t "$(pid "node$1")" -m -n "${@:2}"; }
kctl() { net cp kubectl --kubeconfig "$ETC/admin.kubeconfig" --cache-dir "$VAR/kubectl-cache" "$@"; }
need_cluster() { alive cp || die "no cluster is up in $KUBE_STATE: run $HERE/up.sh"; }

# mount points of all cgroup hierarchies (one on cgroup v2, several on v1)
cg_mounts() { awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/mounts; }
cg2() { [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; }
