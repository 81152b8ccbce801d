"""One file a chapter: what its notebook calls, from the corpus to the results."""
