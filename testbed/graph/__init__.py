"""The lab as a picture: a model, our own layout, and its output formats. Pure, except for png."""
