"""What a lab answers, as types: one for each answer on the control socket and each `-o json`.

docs/reference.md is written from these. A field once published keeps its meaning; when a shape changes,
`testbed.control.wire.PROTOCOL` grows. Nothing here is needed at run time by who only asks.
"""
