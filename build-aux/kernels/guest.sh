#!/usr/bin/env bash
# Runs inside a virtual machine: enters the disk image and runs a command there.
#   guest.sh DIRECTORY COMMAND...
set -euo pipefail

directory=$1
shift
root=/run/kernels
dmesg -n 1
modprobe -a virtio_blk ext4
mkdir -p $root
mount -t ext4 /dev/vda $root
for tree in proc sys dev; do
	mount --rbind /$tree $root/$tree
done
mount --bind /lib/modules $root/usr/lib/modules
mount -t tmpfs none $root/run
mount -t tmpfs none $root/tmp
# Before they are asked for: loading them by themselves would start modprobe on the slow file system.
modprobe -a veth bridge 8021q sch_ingress cls_bpf tcp_diag udp_diag inet_diag 2>/dev/null || true
exec chroot $root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1 \
	bash -c 'cd "$1" && shift && exec "$@"' - "$directory" "$@"
