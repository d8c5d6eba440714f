#!/bin/bash
# Makes all that up.sh needs, from Debian 12 packages and sources only, in KUBE_DIR. Run again it makes only what is missing.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# = 0 ] || die "usage: setup.sh"
LOG=$KUBE_DIR/log
flavour=endpointslice-v1   # see endpointslice-v1.sh

# tools installed into the system: what up.sh runs, and what only building needs
SYSTEM=(iproute2 iptables conntrack procps kmod openssl)
SYSTEM_BUILD=(golang-1.19-go gcc libc6-dev patch curl)
# only unpacked into KUBE_DIR: installed, they would start services or take the place of what the machine has
UNPACK=(containerd runc containernetworking-plugins etcd-server kubernetes-client busybox netcat-openbsd libbsd0 libmd0)
BUILD=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
export GOPATH=$KUBE_DIR/go GOCACHE=$KUBE_DIR/gocache
SRC=$GOPATH/src/k8s.io/kubernetes
TRIPLET=$(uname -m)-linux-gnu

lock "$KUBE_DIR/lock"
mkdir -p "$BIN" "$IMG" "$LOG" "$KUBE_DIR"/{apt,download}
# shellcheck source=/dev/null
codename=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
[ "$codename" = bookworm ] || die "needs Debian 12 (bookworm), this is ${codename:-unknown}"
# quietly NAME CMD...: CMD's output goes to a log, and to the terminal only if it fails
quietly() {
  local log=$LOG/setup-$1.log; shift
  "$@" >"$log" 2>&1 9>&- || { tail -n 20 "$log" >&2; die "failed: $* (all of it: $log)"; }
}

# --- tools -------------------------------------------------------------------------------------------------------------------
install_missing() {
  local missing
  mapfile -t missing < <(comm -23 <(printf '%s\n' "$@" | sort) \
    <(dpkg-query -Wf '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort))
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  quietly apt-update apt-get update
  DEBIAN_FRONTEND=noninteractive quietly apt-install apt-get install -y --no-install-recommends --no-remove "${missing[@]}"
}
install_missing "${SYSTEM[@]}"
# stamps say what was finished; those of sources and binaries name what they are of
built=$BIN/.$flavour
if [ -e "$built" ] && [ -e "$PKG/.done" ] && [ -e "$IMG/.done" ]; then
  say "nothing to do: $KUBE_DIR is ready"
  exit
fi
install_missing "${SYSTEM_BUILD[@]}"

# --- packages and the Kubernetes source: apt with its own source list and state, the mirror taken from the system's ------------
# shellcheck disable=SC2016  # apt's own variables
mirror() {
  apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' \
    | awk '$1 == "Debian" && $2 == "bookworm" && $3 == "main" && !uri {uri = $4} END {print uri}'
}
own_apt() { apt-get -c "$KUBE_DIR/apt/apt.conf" "$@"; }
own_apt_ready() {
  [ ! -e "$KUBE_DIR/apt/ready" ] || return 0
  local uri key=/usr/share/keyrings/debian-archive-keyring.gpg
  uri=$(mirror)
  if [ -z "$uri" ]; then quietly apt-update apt-get update; uri=$(mirror); fi
  [ -n "$uri" ] || die "no Debian bookworm main among the system's apt sources"
  say "reading the package lists of $uri"
  mkdir -p "$KUBE_DIR"/apt/{lists,cache}/partial
  printf "%s [signed-by=$key] $uri bookworm main\n" deb deb-src >"$KUBE_DIR/apt/sources.list"
  cat >"$KUBE_DIR/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$KUBE_DIR/apt/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$KUBE_DIR/apt/lists";
Dir::Cache "$KUBE_DIR/apt/cache";
APT::Sandbox::User "root";   // _apt may not enter root's cache directory
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
CONF
  quietly own-apt-update own_apt update
  touch "$KUBE_DIR/apt/ready"
}
if [ ! -e "$PKG/.done" ]; then
  own_apt_ready
  say "unpacking ${UNPACK[*]}"
  rm -rf "$PKG" "$KUBE_DIR/download/deb"
  mkdir -p "$PKG" "$KUBE_DIR/download/deb"
  cd "$KUBE_DIR/download/deb"
  quietly download own_apt download "${UNPACK[@]}"
  for deb in *.deb; do dpkg-deb -x "$deb" "$PKG"; done
  touch "$PKG/.done"
fi
if [ ! -e "$KUBE_DIR/download/source/.done" ]; then
  own_apt_ready
  say "downloading Kubernetes' source package"
  rm -rf "$KUBE_DIR/download/source"
  mkdir -p "$KUBE_DIR/download/source"
  cd "$KUBE_DIR/download/source"
  quietly source own_apt source --download-only kubernetes
  touch .done
fi

# --- source tree -------------------------------------------------------------------------------------------------------------
tarball=$(echo "$KUBE_DIR"/download/source/*.orig.tar.*)
version=${tarball##*/}; version=${version%.orig.*}; version=${version##*[_y]}   # kubernetes_1.20.5+really1.20.2 -> 1.20.2
if [ ! -e "$SRC/.$flavour" ]; then
  say "unpacking Kubernetes $version"   # Debian's own patches to it are only to kubectl
  rm -rf "$SRC"
  mkdir -p "$SRC"
  tar -xf "$tarball" -C "$SRC" --strip-components=1
  cd "$SRC"
  quietly patch bash "$HERE/endpointslice-v1.sh" "$HERE/endpointslice-v1.patch"
  touch ".$flavour"
fi
cd "$SRC"

# Debian's kubernetes predates modules in its build: GOPATH mode, the vendored dependencies, no cgo
export PATH=/usr/lib/go-1.19/bin:$PATH GOROOT=/usr/lib/go-1.19 GOENV=off GO111MODULE=off GOFLAGS=-trimpath CGO_ENABLED=0
ldflags="-s -w"
for v in gitVersion="v$version" gitMajor=1 gitMinor=20 gitCommit=debian gitTreeState=clean buildDate=2021-01-13T00:00:00Z; do
  for p in component-base/version client-go/pkg/version; do ldflags+=" -X k8s.io/kubernetes/vendor/k8s.io/$p.$v"; done
done
# the API server does not compile without its OpenAPI definitions, which upstream's make generates
openapi=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -s $openapi ]; then
  say "generating OpenAPI definitions"
  go build -o "$GOPATH/bin/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  dirs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg staging/src \
    | grep -vE 'testdata|_examples|zz_generated|sample-|code-generator|/test/|apiserver/pkg/apis/example|pkg/runtime$' \
    | xargs -n1 dirname | LC_ALL=C sort -u \
    | sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg/#k8s.io/kubernetes/pkg/#' | paste -sd,)
  quietly openapi-gen "$GOPATH/bin/openapi-gen" -i "$dirs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$LOG/openapi-violations.txt" --output-base "$GOPATH/src"
fi
if [ ! -e "$built" ]; then
  say "building ${BUILD[*]} agnhost (4 to 8 minutes on 2 cores, less with what is in $GOCACHE)"
  rm -f "$BIN"/.[a-z]*
  quietly build go build -ldflags "$ldflags" -o "$BIN/" "${BUILD[@]/#/./cmd/}" ./test/images/agnhost
  touch "$built"
fi

# --- images: docker-archives of one layer each, without a registry --------------------------------------------------------------
# program ROOT FILE AT: FILE as ROOT/AT, with the libraries it needs
program() {
  local lib
  install -D "$2" "$1/$3"
  LD_LIBRARY_PATH=$PKG/usr/lib/$TRIPLET ldd "$2" | grep -oE '/[^ ]+' | while read -r lib; do install -D "$lib" "$1/${lib#"$PKG"}"; done
}
# image NAME CONFIG TAG...: from the files in NAME/
image() {
  local name=$1 config=$2 w=$IMG/$1.tmp tags
  tags=$(printf ',"localhost/%s"' "${@:3}")
  mkdir "$w"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$IMG/$name" -cf "$w/layer.tar" .
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$config" "$(sha256sum <"$w/layer.tar" | cut -d' ' -f1)" >"$w/config.json"
  printf '[{"Config":"config.json","RepoTags":[%s],"Layers":["layer.tar"]}]' "${tags#,}" >"$w/manifest.json"
  tar -C "$w" -cf "$IMG/$name.tar" config.json layer.tar manifest.json
  rm -r "$w" "${IMG:?}/$name"
}
if [ ! -e "$IMG/.done" ]; then
  say "making images: pause, busybox, agnhost"
  rm -rf "${IMG:?}"/*
  for i in pause busybox agnhost; do mkdir -p "$IMG/$i"; done
  gcc -Os -static -DVERSION=3.2 -o "$IMG/pause/pause" build/pause/linux/pause.c
  image pause '{"Entrypoint":["/pause"],"User":"65535:65535"}' pause:3.2

  for i in busybox agnhost; do
    r=$IMG/$i
    mkdir -p "$r"/{bin,etc,root,tmp,proc,sys,dev,usr/bin}
    chmod 1777 "$r/tmp"
    program "$r" "$PKG/bin/busybox" bin/busybox
    "$PKG/bin/busybox" --list | grep -vx busybox | while read -r applet; do ln -s busybox "$r/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$r/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$r/etc/group"
    echo 'hosts: files dns' >"$r/etc/nsswitch.conf"
  done
  env='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'
  image busybox "{\"Cmd\":[\"/bin/sh\"],$env}" busybox:1
  # the real curl and nc: busybox's lack much
  rm "$IMG/agnhost/bin/nc"
  program "$IMG/agnhost" /usr/bin/curl usr/bin/curl
  program "$IMG/agnhost" "$PKG/bin/nc.openbsd" usr/bin/nc
  cp "$BIN/agnhost" "$IMG/agnhost/"
  image agnhost "{\"Entrypoint\":[\"/agnhost\"],\"Cmd\":[\"pause\"],$env}" agnhost:1
  touch "$IMG/.done"
fi
say "ready in $KUBE_DIR: now run up.sh"
