"""What is done on the host itself: check it, make a lab's namespaces there, find and remove labs."""
