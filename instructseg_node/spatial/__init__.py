"""From masks and depth to geometry: arrays only, no rclpy. ``instructseg_node/outputs_3d.py`` puts it on topics."""
