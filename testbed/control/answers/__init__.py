"""The types of a lab's answers: one for each answer on the control socket and each `-o json`.

docs/reference.md is generated from these. A field once published keeps its meaning; when a shape changes,
`testbed.control.wire.PROTOCOL` grows. Clients do not need this module at run time.
"""
