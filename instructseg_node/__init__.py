"""ROS 2 side of instructed segmentation: the only place of the project that imports rclpy."""
