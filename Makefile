# `make help` lists the targets. Everything happens in .venv and out/; nothing is installed outside this folder.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
ARGS ?=

# Variables of a sourced ROS installation or of another environment would mix foreign libraries into .venv's.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport FASTDDS_BUILTIN_TRANSPORTS ROS_LOCALHOST_ONLY ROS_STATIC_PEERS ROS_DISCOVERY_SERVER

# DDS stays on this host: shared memory only, no socket. Jazzy reads the first name of the file, Kilted the second.
export FASTRTPS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/dds/shm.xml
export FASTDDS_DEFAULT_PROFILES_FILE := $(CURDIR)/config/dds/shm.xml
export ROS_AUTOMATIC_DISCOVERY_RANGE := SYSTEM_DEFAULT
export RMW_IMPLEMENTATION := rmw_fastrtps_cpp
export ROS_LOG_DIR ?= $(CURDIR)/out/ros_log

.PHONY: help setup demo test bench lint clean distclean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## create or update .venv (a second run installs nothing)
	@$(PYTHON) scripts/setup_env.py

demo: setup  ## the node on a recorded camera stream; results in out/demo
	@$(VENV_PYTHON) -m instructseg_node.demo $(ARGS)

test: setup  ## all tests; ARGS="-k name" chooses some
	@ROS_PYTHON_CHECK_FIELDS=1 HF_HUB_OFFLINE=1 $(VENV_PYTHON) -m pytest $(ARGS)

bench: setup  ## speed, age of masks, memory; JSON in out/bench
	@$(VENV_PYTHON) -m bench $(ARGS)

lint: setup  ## ruff
	@$(VENV_PYTHON) -m ruff check .

clean:  ## delete results and caches, keep .venv
	rm -rf out build dist ros2_ws/build ros2_ws/install ros2_ws/log .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## delete .venv too
	rm -rf .venv
