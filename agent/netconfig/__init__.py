"""flannel's network config from etcd, and the options of each backend, checked and turned into values. Pure.

Imported by every room that uses the config, and by testbed, whose cluster file holds the same JSON.
"""
