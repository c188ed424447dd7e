#!/usr/bin/env bash
# Builds the image of the Bento in data/bento and tags it fieldbook:<version of the Bento> and fieldbook:latest.
# With --engine it only prints which engine it would use.
#   CONTAINER_ENGINE       docker or podman; found if left out
#   CONTAINER_BUILD_OPTS   more options for the build, such as "--no-cache"
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "container: $*" >&2; exit 1; }

# A docker client without an engine behind it is common, so the engine is asked; that the program is there says little.
usable() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }

engine=${CONTAINER_ENGINE:-}
if [[ -n $engine ]]; then
    usable "$engine" || fail "CONTAINER_ENGINE=$engine, but \`$engine info\` fails: start that engine or name another"
elif usable docker; then
    engine=docker
elif usable podman; then
    engine=podman
else
    fail "needs Docker Engine or podman: \`apt install podman\` or \`brew install podman && podman machine init --now\`"
fi
if [[ ${1:-} == --engine ]]; then echo "$engine"; exit; fi

bento=data/bento
[[ -f $bento/bento.yaml ]] || fail "$bento is missing: run \`make repro\` first"
version=$(sed -n "s/^version: *['\"]\{0,1\}\([A-Za-z0-9._-]*\).*/\1/p" "$bento/bento.yaml")
[[ -n $version ]] || fail "$bento/bento.yaml names no version: run \`make repro\` again"

# shellcheck disable=SC2086   # the options are words, to be split
"$engine" build ${CONTAINER_BUILD_OPTS:-} -f "$bento/env/docker/Dockerfile" \
    -t "fieldbook:$version" -t fieldbook:latest "$bento"

bytes=$("$engine" image inspect --format '{{.Size}}' "fieldbook:$version")
cat <<END

Image: fieldbook:$version (also fieldbook:latest), $((bytes / 1000000)) MB
Start: $engine run --rm -p 127.0.0.1:3000:3000 -v fieldbook-logs:/logs -e FIELDBOOK_TOKEN \\
         --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \\
         fieldbook:latest
END
