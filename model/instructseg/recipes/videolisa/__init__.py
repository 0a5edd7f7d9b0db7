"""VideoLISA: one token of a language model prompts SAM on every frame of a video."""
