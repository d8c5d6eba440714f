# The rest of /init: the host's root file system, read-only, below one in memory that takes all changes.
set -e
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    $busybox insmod "$module"
done
$busybox mkdir /lower /upper /new
$busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 host /lower
$busybox mount -t tmpfs upper /upper
$busybox mkdir /upper/data /upper/work
$busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /new
modules=/new/lib/modules/$($busybox uname -r)
$busybox mkdir -p "$modules"
$busybox mount --bind "/new$kernel/lib/modules/$($busybox uname -r)" "$modules"
for folder in proc dev; do
    $busybox mount --move /$folder /new/$folder
done
# The kernel looks for modprobe where process 1 has its root.
exec $busybox switch_root /new /bin/sh "$share/guest.sh"
