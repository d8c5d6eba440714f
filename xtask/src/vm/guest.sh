# What process 1 of the guest runs: it mounts what a booted machine has, runs the suites, and ends the machine.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 shm /dev/shm
case $share in
/tmp/*) ;;
*) mount -t tmpfs -o mode=1777 tmp /tmp ;;
esac
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=524288 share "$share" || exit
mkdir -p /run/netns
hostname guest
ip link set lo up
# As every node of a cluster with kube-proxy has it.
modprobe br_netfilter

# Runs the tests of an executable: its name, its folder, the program and its arguments.
suite() {
    name=$1
    cd "$2" || return
    export CARGO_MANIFEST_DIR="$2" BEELINE_SKIPS="$share/$name.skips" BEELINE_FACTS="$share/facts"
    shift 2
    echo "== $name"
    touch "$BEELINE_SKIPS"
    # What it says itself goes to the host; what its children say only to the console.
    { "$@"; echo $? >"$share/$name.status"; } | tee "$share/$name.out"
}

# Ends the machine, which is started not to come up again.
end() {
    sync
    echo b >/proc/sysrq-trigger
    sleep 60
}
trap end EXIT

uname -r >"$share/release"
