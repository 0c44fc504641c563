"""What kubesock costs on this machine: `python -m bench`."""
