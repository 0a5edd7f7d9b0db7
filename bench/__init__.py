"""Speed, age of masks and memory of the default recipe and of the node around it: ``python -m bench``.

Nothing here is a test: a benchmark measures, states the floor beside the figure and leaves the judgement to people.
"""
