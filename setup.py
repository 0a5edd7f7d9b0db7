"""One source tree for pip and for colcon.

The metadata stands here and not in pyproject.toml, because this file is what colcon and the setuptools of every ROS 2
platform read. Nothing of ROS is in install_requires: on a robot it comes from apt and is no pip distribution
(package.xml names it), on other machines from requirements/ros-jazzy.txt.
"""

from glob import glob

from setuptools import find_packages, setup

NODE, MODEL = "instructseg_node", "instructseg"

setup(
    name=NODE,
    version="0.1.0",
    description="Masks and states of what a plain-language instruction names, for every frame of a robot's camera",
    license="Apache-2.0",
    python_requires=">=3.10",
    # `include` keeps setuptools out of ros2_ws, where a link leads back to this folder.
    packages=find_packages(include=[NODE, f"{NODE}.*"]) + find_packages("model", include=[MODEL, f"{MODEL}.*"]),
    package_dir={NODE: NODE, MODEL: f"model/{MODEL}"},
    package_data={MODEL: ["**/*.json", "**/*.yaml", "**/*.safetensors", "**/*.md"], NODE: ["**/*.json"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NODE}"]),
        (f"share/{NODE}", ["package.xml"]),
        (f"share/{NODE}/launch", glob("launch/*.launch.*")),
        (f"share/{NODE}/config", glob("config/*.yaml")),
        (f"share/{NODE}/config/training", glob("config/training/*.yaml")),
        (f"share/{NODE}/config/viewers", glob("config/viewers/*")),
        (f"share/{NODE}/demo", glob("data/demo/*")),
        (f"share/{NODE}/config/dds", glob("config/dds/*.xml")),
    ],
    zip_safe=False,
    install_requires=[
        "accelerate",
        "av",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "psutil",
        "pycocotools",
        "pyyaml",
        "rosbags",
        "safetensors",
        "scipy",
        "sentencepiece",
        "tokenizers",
        "torch>=2.11",
        "tqdm",
        "transformers>=5.17,<6",
    ],
    extras_require={
        "sim": ["mujoco==4.0.0"],
        "rerun": ["rerun-sdk>=0.30"],
        "train": ["peft>=0.18", "tensorboard"],
        # Brings torchvision, whose build has to match torch's: with another one transformers' models fail to import.
        "sam2": ["hydra-core", "iopath", "sam2==1.1.0", "torchvision>=0.26"],
        "dev": ["hypothesis", "pytest", "ruff"],
    },
    entry_points={
        "console_scripts": [
            "instructseg = instructseg.cli:main",
            "instructseg_node = instructseg_node.main:main",
            "instructseg_agent = instructseg_node.examples.agent:main",
            "instructseg_planner = instructseg_node.examples.planner:main",
            "instructseg_play = instructseg_node.replay.player:main",
            "instructseg_rerun = instructseg_node.replay.rerun_bag:main",
            "instructseg_replay = instructseg_node.replay.main:main",
        ],
    },
)
