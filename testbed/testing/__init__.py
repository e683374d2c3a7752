"""The lab as tests hold it; testbed.pytest_plugin makes fixtures of it."""
