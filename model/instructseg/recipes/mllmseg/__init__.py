"""MLLMSeg (arXiv 2508.04107): masks from the language model's own vision encoder, without a second one."""
