#!/bin/sh
# A real coding agent (Claude Code) fixes a bug: it reads and edits a file and
# runs the tests. The model behind it is a stub on loopback that plays
# script.json; the agent does not know.
. "$(dirname "$0")/../common.sh"

version=2.1.330
agent=$CACHE/claude-code-$version
[ -x "$agent/node_modules/.bin/claude" ] ||
    npm install --silent --no-audit --no-fund --prefix "$agent" "@anthropic-ai/claude-code@$version"

project=$OUT/agent-project
(cd "$root" && go build -o "$OUT/model" ./test/stubs/model)
start "$OUT/model.addr" "$OUT/model" -script "$here/script.json" -set "PROJECT=$project" -log "$OUT/model.log"

export CGO_ENABLED=0 # as in 01-go-build
mkdir "$project"
cd "$project"
reset() {
    rm -f NOTES.md
    cp "$here/project/"* .
    warm .cache ./...
}
reset

# The environment is scrubbed to what the policy lists, so the agent's own
# settings come with its command line.
govern coding-agent env CGO_ENABLED=0 \
    "ANTHROPIC_BASE_URL=http://$(cat "$OUT/model.addr")" ANTHROPIC_API_KEY=dummy \
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 IS_SANDBOX=1 "CLAUDE_CONFIG_DIR=$project/.agent" "GOCACHE=$project/.cache" \
    "$agent/node_modules/.bin/claude" -p "Make the tests pass." --permission-mode bypassPermissions </dev/null

grep -q 'total += n' "$project/sum.go"
[ "$(grep -c 'ok.*example.com/sum' "$OUT/model.log")" = 2 ] # in both runs
