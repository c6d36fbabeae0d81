#!/bin/sh
# What the image runs: as root it gives the folder to the user of the image and becomes that user; as any other user it
# makes a configuration where there is none, and then is ipfs-cluster-service with the arguments it got.
set -e

if [ -n "$DOCKER_DEBUG" ]; then
    set -x
fi

# several words in one argument are several arguments, as users of the original image are used to
if [ "$#" -eq 1 ]; then
    set -f
    # shellcheck disable=SC2086
    set -- $1
    set +f
fi

if [ "$(id -u)" -eq 0 ]; then
    echo "Changing user to ipfs"
    if ! su-exec ipfs test -w "$IPFS_CLUSTER_PATH"; then
        chown -R -- ipfs "$IPFS_CLUSTER_PATH"
    fi
    exec su-exec ipfs "$0" "$@"
fi

ipfs-cluster-service --version
if [ -e "$IPFS_CLUSTER_PATH/service.json" ]; then
    echo "Found IPFS cluster configuration at $IPFS_CLUSTER_PATH"
else
    echo "No configuration at $IPFS_CLUSTER_PATH: making one"
    echo "This container runs no IPFS daemon: it needs one beside it, or the argument --embedded"
    ipfs-cluster-service init --consensus "$IPFS_CLUSTER_CONSENSUS"
fi
exec ipfs-cluster-service "$@"
