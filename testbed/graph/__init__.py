"""The lab as a picture: a model, a layout of our own, and the forms it is written in. Pure, but for png."""
