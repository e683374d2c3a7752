"""Answers in people's form: tables, the text of a trace, progress bars."""
