# What the examples share; each sources it. Needs exeq on the PATH, or $EXEQ.
#
#   $OUT     where policies and proofs are left; default: a temporary directory
#   $CACHE   where downloads of fixed versions are kept
#   $EXEQ_CONTROL   set by the tests where $EXEQ is a stand-in that governs nothing
set -eu
: "${EXEQ:=exeq}"
: "${OUT:=$(mktemp -d)}"
: "${CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/exeq-examples}"
export EXEQ_STATE="${EXEQ_STATE:-$OUT/state}"
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$OUT" "$CACHE"

# govern NAME COMMAND… learns what the command needs in the current directory,
# runs it again under exactly that, and checks the proof of the second run.
# Between the two it calls reset, which an example defines where the first run
# left something behind.
govern() {
    name=$1
    shift
    "$EXEQ" learn -o "$OUT/$name.policy" -- "$@"
    "$EXEQ" policy check "$OUT/$name.policy"
    reset
    "$EXEQ" run --policy "$OUT/$name.policy" --proof "$OUT/$name.proof" -- "$@"
    "$EXEQ" trust export -o "$OUT/trust.json"
    "$EXEQ" verify --trust "$OUT/trust.json" "$OUT/$name.proof"
}

reset() { :; }

# warm DIR PACKAGE… fills DIR, a Go build cache, with the parts of the standard
# library that the packages and their tests need, so that an example compiles
# only what is its own.
warm() {
    dir=$1
    shift
    kept=$CACHE/$(go env GOVERSION)-cgo$(go env CGO_ENABLED)
    GOCACHE=$kept go build $(go list -e -deps -test -f '{{if .Standard}}{{.ImportPath}}{{end}}' "$@")
    rm -rf "$dir"
    cp -r "$kept" "$dir"
}

# start FILE COMMAND… runs a loopback server until the example ends and puts
# the address, its first line of output, into FILE.
start() {
    file=$1
    shift
    rm -f "$file"
    "$@" >"$file" &
    servers="${servers-} $!"
    trap 'kill $servers' EXIT
    until [ -s "$file" ]; do
        kill -0 $! # it still runs
        sleep 0.1
    done
}
