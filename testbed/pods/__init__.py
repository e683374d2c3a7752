"""Pods: pause, containers, their network and files."""
