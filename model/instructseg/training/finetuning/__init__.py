"""``instructseg train CONFIG``: published systems fine-tuned on the field's data sets or on a robot's recordings."""
