#!/bin/sh
# Builds a real Go module and runs its tests: compiler, linker and the test
# binaries that they make, each decided on when it starts.
. "$(dirname "$0")/../common.sh"

# A copy of golang.org/x/mod in the version that Exeq itself uses.
project=$OUT/go-project
cp -r "$(cd "$root" && go list -m -f '{{.Dir}}' golang.org/x/mod)" "$project"
chmod -R u+w "$project"
cd "$project"

# Without cgo: a C compiler that go looks for and does not run is not learned.
export GOCACHE="$project/.cache" GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0

reset() { warm .cache ./...; } # the module itself is built anew each time
reset
govern go-build go build ./...
govern go-test go test ./semver ./module
