#!/bin/bash
# stop.sh NAME...: kills components of the cluster (apiserver, controller-manager, scheduler, etcd, kubeletN, containerdN, proxyN)
# as a crash would, and waits until they are gone. up.sh starts them again.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_cluster
gone() { ! alive "$1"; }
for name; do
  [ -e "$RUN/$name.pid" ] || die "there is no $name; there are: $(cd "$RUN" && ls -- *.pid | sed 's/\.pid$//' | xargs)"
  ! alive "$name" || kill -9 "$(pid "$name")"
  wait_for "$name to end" gone "$name"
done
