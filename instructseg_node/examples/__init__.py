"""Small nodes to read and to begin with: an agent that gives instructions, a planner that relies on the answers."""
