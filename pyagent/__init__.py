"""kubesock: Kubernetes Services translated in connect() and sendmsg(), not in packets."""

__version__ = "0.1.0"
