"""The lab as tests use it; testbed.pytest_plugin provides it as fixtures."""
