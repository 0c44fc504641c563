"""Two nodes, each with an agent of its own, and what scenarios say to them.

`nodes` is the cluster, `clients` what dials in it, `objects` what is put into its manifests directory.
"""
