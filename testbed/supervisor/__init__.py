"""A lab's supervisor: starts it in phases, puts its parts together and answers its verbs."""
