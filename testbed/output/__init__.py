"""Answers as people read them: tables, the text of a trace, bars of progress."""
