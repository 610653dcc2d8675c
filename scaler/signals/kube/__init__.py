"""What Kubernetes knows of the targets, kept in memory by list and watch.

Read ``view`` first: it is what the daemon uses, and its docstring lists the permissions needed.
"""
