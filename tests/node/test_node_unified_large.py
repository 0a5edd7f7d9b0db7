"""The real node with the default recipe on pretrained backbones, tiny and random: it loads by the parameter checkpoint,
answers, and says in diagnostics that it was never trained."""

from __future__ import annotations

from pathlib import Path

from instructseg_msgs.msg import Target
from node.node_harness import Harness
from unit.tiny_unified_large import large_checkpoint

from instructseg_node.node import load_segmenter


def test_an_assembled_checkpoint_runs_in_the_node_and_is_known_as_untrained(ros, tmp_path: Path) -> None:
    node = Harness(ros, factory=load_segmenter, checkpoint=str(large_checkpoint(tmp_path)), device="cpu")
    node.up("targets")
    assert "not trained yet: perception, language" in node.diagnostics()["note 1"]
    node.say("the red block")
    decided = {Target.PRESENT, Target.NO_TARGET, Target.UNCERTAIN, Target.OCCLUDED, Target.LOST}

    def answered() -> bool:
        return any(target.state in decided for message in node.heard["targets"] for target in message.targets)

    node.show_until(answered, "a verdict on the red block", "red")
