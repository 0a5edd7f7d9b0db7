"""The field's benchmarks: how each is asked, what is kept of the answers, how they are scored."""
