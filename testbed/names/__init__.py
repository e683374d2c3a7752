"""The cluster's DNS: what names there are, and the server that answers for them."""
