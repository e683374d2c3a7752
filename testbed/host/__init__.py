"""Work on the host itself: check it, create a lab's namespaces, find and remove labs."""
