"""Declare `image`, which builds the container image."""

from parity.pipeline.declaration import Command, Option

COMMAND = Command(
    "image",
    "Build the Dockerfile on Kaggle's image with docker, podman or buildah.",
    "parity.pipeline.command_cores.image:build",
    options=(Option("--base", "another base image, such as a stand-in", default=""),),
)
