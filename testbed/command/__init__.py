"""The command line: the user's input and its path to a lab, on the host's side."""
