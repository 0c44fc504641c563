#!/usr/bin/env bash
# A control plane without kube-proxy, then kubesock from the tree at /kubesock. May run again.
set -euo pipefail
# shellcheck source=vagrant/versions.env
. /kubesock/vagrant/versions.env

address=192.168.56.10
export KUBECONFIG=/etc/kubernetes/admin.conf DEBIAN_FRONTEND=noninteractive

if [ ! -e $KUBECONFIG ]; then
	kubeadm init --skip-phases=addon/kube-proxy --apiserver-advertise-address=$address \
		--kubernetes-version="$KUBERNETES_VERSION" --service-cidr=10.96.0.0/16 \
		--token=kubeso.0123456789abcdef --token-ttl=24h
fi
home=$(getent passwd vagrant | cut -d: -f6)
install -d -o vagrant -g vagrant "$home/.kube"
install -o vagrant -g vagrant -m 0600 $KUBECONFIG "$home/.kube/config"
# Workers join by the CA's hash; they read it, with the image, over the private network.
openssl x509 -pubkey -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der |
	sha256sum | cut -d' ' -f1 >/srv/ca-hash

apt-get install -qq -y --no-install-recommends buildah crun git python3 >/dev/null
cd /kubesock
BUILDER=buildah TAG=localhost/kubesock:vagrant BASE=$BASE_IMAGE build-aux/image/build.sh
rm -f /srv/kubesock.tar
buildah push -q localhost/kubesock:vagrant docker-archive:/srv/kubesock.tar:localhost/kubesock:vagrant
ctr -n k8s.io images import /srv/kubesock.tar >/dev/null

cat >/etc/systemd/system/share.service <<-END
	[Unit]
	Description=The image and the CA's hash for the workers
	[Service]
	ExecStart=/usr/bin/python3 -m http.server --bind $address --directory /srv 8000
	[Install]
	WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable -q --now share.service

mkdir -p /etc/kubesock
cat >/etc/kubesock/kustomization.yaml <<-END
	resources: [../../kubesock/deploy/kustomize/overlays/least-privilege]
	images: [{name: kubesock, newName: localhost/kubesock, newTag: vagrant}]
	patches:
	  - target: {kind: ConfigMap, name: kubesock}
	    patch: '[{"op": "replace", "path": "/data/api-server", "value": "$address:6443"}]'
END
kubectl apply -k /etc/kubesock
kubectl -n kube-system rollout status daemonset/kubesock --timeout=300s
