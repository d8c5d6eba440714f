#!/bin/bash
# Takes down what up.sh started: processes, cgroups, namespaces (and with them links, mounts, firewall rules, bpffs pins), node
# directories. Keeps what setup.sh made, and the logs; with --purge the logs go too. Also cleans up after a crash or a reboot.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ "${BEELINE_KUBE:-}" != "$TAG" ] || die "run it outside of the nodes"
[[ ${1:-} =~ ^(--purge)?$ ]] || die "usage: down.sh [--purge]"
lock "$KUBE_STATE.lock"

# Ours are the processes with our mark in their environment, and all processes in our cgroups (the pods').
ours() {
  { grep -lzxs "BEELINE_KUBE=$TAG" /proc/[0-9]*/environ || true; } | cut -d/ -f3
  for m in $(cg_mounts); do [ ! -d "$m/$TAG" ] || find "$m/$TAG" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done
}
# SIGKILL, as all their state goes away too; again, for what was just being started
for _ in $(seq 100); do
  mapfile -t pids < <(ours | sort -un)
  [ ${#pids[@]} -gt 0 ] || break
  kill -9 "${pids[@]}" 2>/dev/null || true
  sleep .1
done
[ ${#pids[@]} = 0 ] || die "still running: ${pids[*]}"

for m in $(cg_mounts); do
  for _ in $(seq 50); do   # a cgroup stays busy for a moment after its last process
    [ -d "$m/$TAG" ] || break
    find "$m/$TAG" -depth -type d -exec rmdir {} + 2>/dev/null || sleep .1
  done
  [ ! -d "$m/$TAG" ] || die "cannot remove $m/$TAG"
done
# what up.sh had to change on the machine itself, undone: controllers enabled in the root cgroup, directories made to mount on
clusters() { compgen -G "/sys/fs/cgroup/beeline-kube-*" || compgen -G "/sys/fs/cgroup/*/beeline-kube-*"; }
lock_shared
if ! clusters >/dev/null; then
  if [ -e "$SHARED/controllers" ]; then
    for c in $(</sys/fs/cgroup/cgroup.subtree_control); do
      grep -qw "$c" "$SHARED/controllers" || echo "-$c" >/sys/fs/cgroup/cgroup.subtree_control || true   # refused if used elsewhere by now
    done 2>/dev/null
  fi
  [ ! -s "$SHARED/mkdir" ] || tac "$SHARED/mkdir" | xargs -r rmdir --ignore-fail-on-non-empty 2>/dev/null || true
  rm -rf "$SHARED"
fi
unlock_shared
rm -rf --one-file-system "$VAR" "$RUN"
[ "${1:-}" != --purge ] || rm -rf --one-file-system "$KUBE_STATE" "$KUBE_STATE.lock"
say "down"
