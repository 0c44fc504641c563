#!/usr/bin/env bash
# The smoke test, on the control plane: vagrant ssh control-plane -c /kubesock/vagrant/verify.sh
# Pod -> ClusterIP, nodePort of every node, DNS, scale to zero, restart of the agents. Exit code 0: all held.
# shellcheck disable=SC2317 # `holds` calls the functions
set -euo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=vagrant/versions.env
. "$folder/versions.env"

failed=0
holds() { # holds WHAT COMMAND...: one line; the output only of what failed
	local what=$1 said
	shift
	if said=$("$@" 2>&1); then
		printf 'ok    %s\n' "$what"
	else
		failed=1
		printf 'FAIL  %s\n%s\n' "$what" "$said"
	fi
}
in_client() { kubectl exec client -- "$@"; }
answers() { in_client curl -fsS --max-time 5 "http://$1/hostname"; } # the name of the pod that answered
both_answer() {
	local names
	names=$(for _ in $(seq 40); do answers "$1" && echo; done | sort -u)
	[ "$(grep -c . <<<"$names")" = 2 ] || { echo "only: $names"; return 1; }
}
refused_at_once() {
	local said
	said=$(in_client /agnhost connect --timeout=3s "$1:80" 2>&1) && { echo "connected"; return 1; }
	grep -q REFUSED <<<"$said" || { echo "$said"; return 1; }
}
soon() { # soon COMMAND...: what holds within a minute
	for _ in $(seq 60); do "$@" >/dev/null 2>&1 && return; sleep 1; done
	"$@"
}

nobody() { [ -z "$(kubectl -n kube-system get pods -l k8s-app=kube-proxy -o name)" ]; }
holds "no kube-proxy runs" nobody

kubectl -n kube-system rollout status daemonset/kubesock --timeout=300s >/dev/null
kubectl -n kube-system rollout status deployment/coredns --timeout=300s >/dev/null
sed "s|AGNHOST_IMAGE|$AGNHOST_IMAGE|" "$folder/demo.yaml" | kubectl apply -f - >/dev/null
kubectl rollout status deployment/web --timeout=300s >/dev/null
kubectl wait --for=condition=Ready pod/client --timeout=300s >/dev/null

cluster_ip=$(kubectl get service web -o jsonpath='{.spec.clusterIP}')
nodes=$(kubectl get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}')

holds "a pod reaches both pods by the ClusterIP" soon both_answer "$cluster_ip"
holds "and by the Service's name" answers web.default.svc.cluster.local
for node in $nodes; do
	holds "and by the nodePort of $node" answers "$node:30080"
done
holds "DNS answers over TCP" in_client dig +tcp +short +time=3 kubernetes.default.svc.cluster.local

kubectl scale deployment/web --replicas=0 >/dev/null
holds "without pods a dial is refused at once" soon refused_at_once "$cluster_ip"
kubectl scale deployment/web --replicas=2 >/dev/null
kubectl rollout status deployment/web --timeout=300s >/dev/null
holds "with pods it is answered again" soon both_answer "$cluster_ip"

kubectl -n kube-system rollout restart daemonset/kubesock >/dev/null
missed=0
for _ in $(seq 60); do answers "$cluster_ip" >/dev/null 2>&1 || missed=$((missed + 1)); done
none_missed() { [ "$missed" = 0 ] || { echo "$missed of 60"; return 1; }; }
holds "no dial fails while the agents restart" none_missed
kubectl -n kube-system rollout status daemonset/kubesock --timeout=300s >/dev/null
holds "the agent's own view is healthy" kubectl -n kube-system exec daemonset/kubesock -- kubesock status

exit $failed
