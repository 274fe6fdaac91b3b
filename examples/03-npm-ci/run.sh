#!/bin/sh
# Installs an app's dependencies through Exeq's proxy and runs its tests: a
# native addon is mapped and a native program started from node_modules.
. "$(dirname "$0")/../common.sh"

# The packages, in fixed versions, from the registry that npm is set up with.
packages=$CACHE/npm
mkdir -p "$packages"
while read -r package file; do
    [ -f "$packages/$file" ] || npm pack --silent --pack-destination "$packages" "$package" >/dev/null
done <"$here/packages.txt"

# A registry on loopback: the only place that the install may reach.
(cd "$root" && go build -o "$OUT/registry" ./test/stubs/registry)
start "$OUT/registry.addr" "$OUT/registry" -packages "$packages"

app=$OUT/npm-app
mkdir -p "$app"
cp -r "$here/app/." "$app"
cd "$app"

reset() { rm -rf node_modules .npm; }
govern npm-ci npm ci --registry "http://$(cat "$OUT/registry.addr")/" --cache .npm --no-audit --no-fund
reset() { :; }
govern npm-test npm test --cache .npm
