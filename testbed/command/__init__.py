"""What the user types, and how it reaches a lab: the host's side."""
