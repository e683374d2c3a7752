"""A lab's supervisor: starts it in phases, assembles its parts and answers its verbs."""
