"""The native data path: C that decides as forwarder.py does and moves packets in bulk; built by build.py."""
