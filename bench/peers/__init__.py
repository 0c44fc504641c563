"""NAT rules as kube-proxy loads them, for comparison; each module has the rules of one of its modes."""
