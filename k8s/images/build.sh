#!/bin/sh
# Build the images with docker, podman or buildah, and print how to use them in an overlay. Run it in the root of the
# repository (`make images`). Variables:
#   REGISTRY  prefix of the names, e.g. ghcr.io/team
#   TAG       default: 0.1.0
#   IMAGES    default: "smoe-ray smoe-ray-gpu smoe-ray-dashboard"
#   VARIANT   of Ray's CPU image: cpu (default), or cpu-aarch64 for arm64
set -eu

prefix=${REGISTRY:+${REGISTRY%/}/}
tag=${TAG:-0.1.0}
images=${IMAGES:-smoe-ray smoe-ray-gpu smoe-ray-dashboard}

engine=
for program in docker podman buildah; do
    if command -v "$program" > /dev/null; then
        engine=$program
        break
    fi
done
if [ -z "$engine" ]; then
    echo "make images: none of docker, podman and buildah is on the PATH; install one" >&2
    exit 1
fi

format=
if [ "$engine" != docker ]; then
    format="--format=docker" # their own format has no HEALTHCHECK
fi

set_image="kustomize edit set image"
for image in $images; do
    case $image in
        smoe-ray) set -- --target ray --build-arg "VARIANT=${VARIANT:-cpu}" ;;
        smoe-ray-gpu) set -- --target ray --build-arg VARIANT=gpu --build-arg TORCH_INDEX= ;;
        smoe-ray-dashboard) set -- --target dashboard ;;
        *)
            echo "make images: IMAGES: $image is none of smoe-ray, smoe-ray-gpu, smoe-ray-dashboard" >&2
            exit 1
            ;;
    esac
    # shellcheck disable=SC2086 # nothing, or one word
    "$engine" build $format --file k8s/images/Dockerfile --tag "$prefix$image:$tag" "$@" .
    set_image="$set_image $image=$prefix$image:$tag"
done
echo "$set_image"
