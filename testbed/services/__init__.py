"""Services: a stable address and name over pods that come and go, as one nftables table per node.

services + pods ── endpoints ──> bound ports ── rules ──> wanted table ── difference ──> nft, one transaction per node
"""
