#!/bin/bash
# Brings up a Kubernetes cluster on this machine: a control plane, and nodes that are real kubelets, each in its own network and
# mount namespace. Run again with the same settings it starts what is missing. Settings, from the environment:
#   NODES=1..9 (2)   DUAL=0|1 (0: IPv4 only)   PROXY=0|1 (1: kube-proxy)
. "$(dirname "$(readlink -f "$0")")/lib.sh"
NODES=${NODES:-2} DUAL=${DUAL:-0} PROXY=${PROXY:-1}
settings="NODES=$NODES DUAL=$DUAL PROXY=$PROXY"
[[ $settings =~ ^NODES=[1-9]\ DUAL=[01]\ PROXY=[01]$ ]] || die "bad settings: $settings"
[ -e "$IMG/.done" ] || die "run setup.sh first"
# nodes keep their containers' file systems there, which are overlays
[ "$(stat -fc %T "$KUBE_DIR")" != overlayfs ] || die "$KUBE_DIR is on overlayfs: set KUBE_DIR to a directory that is not"
[ ! -d "$RUN" ] || alive cp || "$HERE/down.sh" >/dev/null   # what a crash or a reboot left
lock "$KUBE_STATE.lock"
mkdir -p "$RUN" "$LOG" "$VAR" "$PKI"
[ "$(cat "$RUN/settings" 2>/dev/null || echo "$settings")" = "$settings" ] || die "already up with $(<"$RUN/settings"): run down.sh first"
echo "$settings" >"$RUN/settings"

# EndpointSliceNodeName (alpha in 1.20) fills endpoints[].nodeName; dual stack is alpha in 1.20 too
gates=EndpointSliceNodeName=true kubelet_gates=
if [ "$DUAL" = 1 ]; then
  gates+=,IPv6DualStack=true kubelet_gates=IPv6DualStack=true SVC_CIDR+=,$SVC6_CIDR POD_CIDR+=,$POD6_CIDR
fi

# --- underlay: a bridge in a namespace of its own, one cable from it to the control plane and to each node ------------------------
# Debian's kernel has bridge netfilter as a module; loading it must not change how this machine's own bridges work
if [ ! -e /proc/sys/net/bridge ]; then
  modprobe br_netfilter
  sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 net.bridge.bridge-nf-call-arptables=0
fi
own_net() { [ "$(readlink "/proc/$(pid "$1")/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
has_link() { net "$1" ip link show "$2" >/dev/null 2>&1; }
for ns in underlay cp; do
  start $ns unshare -n sleep infinity
  wait_for "$ns namespace" own_net $ns
done
net underlay sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
has_link underlay br0 || net underlay ip link add br0 up type bridge
# join NAME IPV4 IPV6
join() {
  net "$1" ip link set lo up
  net "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-iptables=1
  has_link "$1" eth0 || ip link add "$1" netns "$(pid underlay)" type veth peer name eth0 netns "$(pid "$1")"
  net underlay ip link set "$1" master br0 up
  net "$1" ip addr replace "$2/24" dev eth0
  net "$1" ip addr replace "$3/64" dev eth0 nodad
  net "$1" ip link set eth0 up
}
join cp $CP_IP fd00:31::10

# --- certificates, kubeconfigs ----------------------------------------------------------------------------------------------------
# certificate NAME SUBJECT [NAMES]: signed by the cluster's CA
certificate() {
  [ ! -s "$PKI/$1.crt" ] || return 0
  openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$PKI/$1.key" -out "$PKI/$1.csr" 2>/dev/null
  openssl x509 -req -in "$PKI/$1.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 -out "$PKI/$1.crt" \
    -extfile <(echo extendedKeyUsage=serverAuth,clientAuth; [ -z "${3:-}" ] || echo "subjectAltName=$3") 2>/dev/null
}
# kubeconfig NAME SUBJECT [NAMES]: for a client of the API server; written anew each time, as it holds paths below KUBE_DIR
kubeconfig() {
  certificate "$@"
  cat >"$ETC/$1.kubeconfig" <<END
{"apiVersion": "v1", "kind": "Config", "current-context": "c",
 "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
 "clusters": [{"name": "c", "cluster": {"server": "https://$CP_IP:6443", "certificate-authority": "$PKI/ca.crt"}}],
 "users": [{"name": "u", "user": {"client-certificate": "$PKI/$1.crt", "client-key": "$PKI/$1.key"}}]}
END
}
if [ ! -s "$PKI/ca.crt" ]; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=beeline-kube -keyout "$PKI/ca.key" -out "$PKI/ca.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
  openssl genrsa -out "$PKI/sa.key" 2048 2>/dev/null
fi
certificate apiserver /CN=kube-apiserver \
  "IP:127.0.0.1,IP:$CP_IP,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
certificate apiserver-kubelet /O=system:masters/CN=apiserver-kubelet
kubeconfig admin /O=system:masters/CN=admin
kubeconfig controller-manager /CN=system:kube-controller-manager
kubeconfig scheduler /CN=system:kube-scheduler
kubeconfig proxy /CN=system:kube-proxy
for i in $(seq "$NODES"); do kubeconfig "node$i" "/O=system:nodes/CN=system:node:node$i" "IP:$(node_ip "$i"),DNS:node$i"; done
say "underlay, certificates"

# --- control plane ------------------------------------------------------------------------------------------------------------
start_cp() { start "$1" nsenter -t "$(pid cp)" -n "${@:2}"; }
start_cp etcd etcd --data-dir "$VAR/etcd" --unsafe-no-fsync --logger zap --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
  --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
start_cp apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=$CP_IP --advertise-address=$CP_IP --secure-port=6443 \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" --cert-dir="$VAR/apiserver" \
  --kubelet-client-certificate="$PKI/apiserver-kubelet.crt" --kubelet-client-key="$PKI/apiserver-kubelet.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --service-account-key-file="$PKI/sa.key" --service-account-signing-key-file="$PKI/sa.key" \
  --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range="$SVC_CIDR" \
  --authorization-mode=Node,RBAC --allow-privileged=true --feature-gates=$gates
wait_for "the API server" kctl get --raw /readyz
say "API server ready"
start_cp controller-manager kube-controller-manager --kubeconfig="$ETC/controller-manager.kubeconfig" --bind-address=127.0.0.1 --port=0 \
  --cert-dir="$VAR/controller-manager" --flex-volume-plugin-dir="$VAR/none" --leader-elect=false --feature-gates=$gates \
  --allocate-node-cidrs=true --cluster-cidr="$POD_CIDR" --service-cluster-ip-range="$SVC_CIDR" \
  --service-account-private-key-file="$PKI/sa.key" --root-ca-file="$PKI/ca.crt" --use-service-account-credentials=true \
  --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
start_cp scheduler kube-scheduler --kubeconfig="$ETC/scheduler.kubeconfig" --bind-address=127.0.0.1 --port=0 \
  --cert-dir="$VAR/scheduler" --leader-elect=false

# --- nodes --------------------------------------------------------------------------------------------------------------------
# node-init.sh mounts on these; those that the machine lacks are made, and removed by the last down.sh
lock_shared
for d in /opt/cni /opt/cni/bin /etc/cni /etc/cni/net.d /var/lib/{cni,containerd,kubelet} /var/log/{pods,containers}; do
  if [ ! -d "$d" ]; then mkdir "$d"; echo "$d" >>"$SHARED/mkdir"; fi
done
# down.sh of another cluster sees by it that there is this one
for m in $(cg_mounts); do mkdir -p "$m/$TAG"; done
if cg2 && [ ! -e "$SHARED/controllers" ]; then cp /sys/fs/cgroup/cgroup.subtree_control "$SHARED/controllers"; fi
unlock_shared
# kubelet wants its cgroup root, /TAG/nodeN, to exist and to have these controllers; the last down.sh restores the root cgroup's
cgroups() {
  local node=$1 at c m
  if cg2; then
    for at in /sys/fs/cgroup "/sys/fs/cgroup/$TAG"; do
      mkdir -p "$at"
      for c in cpu cpuset memory pids hugetlb io; do
        ! grep -qw $c "$at/cgroup.controllers" || echo +$c >"$at/cgroup.subtree_control"
      done
    done
    mkdir -p "/sys/fs/cgroup/$TAG/$node"
  else
    for m in $(cg_mounts); do
      for at in "$m/$TAG" "$m/$TAG/$node"; do
        mkdir -p "$at"
        for c in cpuset.cpus cpuset.mems; do [ ! -e "$at/$c" ] || [ -n "$(<"$at/$c")" ] || cat "$at/../$c" >"$at/$c"; done
      done
    done
  fi
}
start_node() { start "$1$2" nsenter -t "$(pid "node$2")" -m -n "${@:3}"; }
ctr_node() { in_node "$1" ctr -n k8s.io "${@:2}"; }
node_up() {
  local i=$1 N=$VAR/node$1 image
  alive "node$i" || [ ! -e "$N/ready" ] || die "node$i's anchor process has died: run down.sh first"
  mkdir -p "$N"
  start "node$i" unshare -n -m --propagation private bash "$HERE/node-init.sh" "$i"
  wait_for "node$i's namespaces" test -e "$N/ready"
  join "node$i" "$(node_ip "$i")" "$(node_ip6 "$i")"
  net "node$i" ip route replace default via $CP_IP
  cgroups "node$i"
  start_node containerd "$i" containerd -c "$HERE/containerd.toml"
  wait_for "node$i's containerd" ctr_node "$i" version
  cat >"$N/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_ip "$i")
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/node$i.crt
tlsPrivateKeyFile: $PKI/node$i.key
cgroupDriver: cgroupfs
cgroupRoot: /$TAG/node$i
enforceNodeAllocatable: [pods]
failSwapOn: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: $N/resolv.conf
# the machine's disk is shared: never collect our images, and evict only when it is all but full
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
END
  echo "nameserver 10.96.0.10" >"$N/resolv.conf"
  # the variable: else kubelet spends 5 s looking for a cloud's metadata
  start_node kubelet "$i" env AWS_EC2_METADATA_DISABLED=true kubelet --config="$N/kubelet.yaml" \
    --kubeconfig="$ETC/node$i.kubeconfig" --hostname-override="node$i" --node-ip="$(node_ip "$i")" \
    --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock --pod-infra-container-image=localhost/pause:3.2 \
    --volume-plugin-dir=/var/lib/kubelet/plugins-exec --feature-gates=$kubelet_gates --v=2
  for image in pause busybox agnhost; do
    ctr_node "$i" images ls -q | grep -q "^localhost/$image:" || ctr_node "$i" images import "$IMG/$image.tar" >/dev/null
  done
  wait_for "node$i to register" kctl get node "node$i"
  wait_for "node$i's podCIDR" has_cidr "$i"
}
node_field() { kctl get node "node$1" -o "jsonpath={$2}"; }
has_cidr() { node_field "$1" .spec.podCIDRs | grep /; }
say "starting $NODES nodes"
jobs=()
for i in $(seq "$NODES"); do node_up "$i" & jobs+=($!); done
for j in "${jobs[@]}"; do wait "$j"; done
say "nodes registered"

# --- pod network: the plugin's business ----------------------------------------------------------------------------------------
# containerd itself calls the loopback plugin
for i in $(seq "$NODES"); do cp "$PKG"/usr/lib/cni/loopback "$VAR/node$i/opt-cni-bin/"; done
if [ "$PROXY" = 1 ]; then
  for i in $(seq "$NODES"); do
    alive "proxy$i" && continue   # it would end if its configuration were written again
    # maxPerCore 0: conntrack's size is the whole machine's
    cat >"$VAR/node$i/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: $(node_ip "$i")
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: $ETC/proxy.kubeconfig}
clusterCIDR: "$POD_CIDR"
hostnameOverride: node$i
mode: iptables
featureGates: {$([ "$DUAL" = 0 ] || echo "IPv6DualStack: true")}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END
    start_node proxy "$i" kube-proxy --config="$VAR/node$i/proxy.yaml" --v=2
  done
fi
# --- what a plugin's developer needs to know ------------------------------------------------------------------------------------
for i in $(seq "$NODES"); do
  a=$(pid "node$i")
  cat <<END

node$i  InternalIP $(node_ip "$i")  podCIDRs $(node_field "$i" .spec.podCIDRs)  $(kctl get node "node$i" --no-headers | awk '{print $2}')
  plugins    $VAR/node$i/opt-cni-bin  (the node's /opt/cni/bin)
  conflist   $VAR/node$i/cni-net.d  (its /etc/cni/net.d)
  bpffs      /sys/fs/bpf is $(in_node "$i" stat -fc %T /sys/fs/bpf), the node's own
  enter      nsenter -t $a -m -n CMD...   ($a is its anchor process; or: $HERE/node.sh $i CMD...)
END
done
echo "
A node becomes Ready when it has a conflist. It has only the loopback plugin; Debian's others are in $PKG/usr/lib/cni."
