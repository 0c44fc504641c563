#!/usr/bin/env bash
# node.sh INDEX: a machine that kubeadm can take: containerd, kubelet, a bridge for pods, routes to the others' pods.
# There is no network daemon: the three subnets and the routes between them are fixed, so nothing needs a Service.
set -euo pipefail
# shellcheck source=vagrant/versions.env
. /kubesock/vagrant/versions.env

index=$1
export DEBIAN_FRONTEND=noninteractive

swapoff -a
sed -i '/\sswap\s/d' /etc/fstab
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/kubesock.conf
modprobe -a overlay br_netfilter
cat >/etc/sysctl.d/90-kubesock.conf <<-END
	net.ipv4.ip_forward = 1
	net.bridge.bridge-nf-call-iptables = 1
END
sysctl -q --system

apt-get update -qq
apt-get install -qq -y --no-install-recommends ca-certificates curl gpg containerd containernetworking-plugins >/dev/null
curl -fsSL "${KUBERNETES_PACKAGES}Release.key" | gpg --dearmor --yes -o /etc/apt/keyrings/kubernetes.gpg
echo "deb [signed-by=/etc/apt/keyrings/kubernetes.gpg] $KUBERNETES_PACKAGES /" >/etc/apt/sources.list.d/kubernetes.list
apt-get update -qq
apt-get install -qq -y --no-install-recommends "kubelet=$KUBERNETES_VERSION-*" "kubeadm=$KUBERNETES_VERSION-*" \
	"kubectl=$KUBERNETES_VERSION-*" >/dev/null
apt-mark -q hold kubelet kubeadm kubectl >/dev/null

mkdir -p /etc/containerd /etc/cni/net.d
containerd config default | sed -e 's/SystemdCgroup = false/SystemdCgroup = true/' \
	-e 's|bin_dir = .*|bin_dir = "/usr/lib/cni"|' >/etc/containerd/config.toml
systemctl restart containerd
echo "KUBELET_EXTRA_ARGS=--node-ip=192.168.56.$((10 + index))" >/etc/default/kubelet

cat >/etc/cni/net.d/10-bridge.conflist <<-END
	{"cniVersion": "1.0.0", "name": "pods", "plugins": [
	  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
	   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$index.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
{
	printf '[Unit]\nDescription=Routes to the pods of the other nodes\nAfter=network-online.target\n'
	printf '[Service]\nType=oneshot\nRemainAfterExit=yes\n'
	for other in 0 1 2; do
		[ "$other" = "$index" ] ||
			printf 'ExecStart=/usr/sbin/ip route replace 10.244.%s.0/24 via 192.168.56.%s\n' "$other" $((10 + other))
	done
	printf '[Install]\nWantedBy=multi-user.target\n'
} >/etc/systemd/system/pod-routes.service
systemctl daemon-reload
systemctl enable -q --now pod-routes.service
