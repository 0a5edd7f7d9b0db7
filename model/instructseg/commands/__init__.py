"""The commands of ``instructseg``: each module has ``add_parser`` and ``run``. Torch is imported when one runs."""
