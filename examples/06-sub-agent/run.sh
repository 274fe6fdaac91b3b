#!/bin/sh
# A run inside a run: what an agent starts through exeq becomes its child, with
# rights within its own and a proof of its own.
. "$(dirname "$0")/../common.sh"

work=$OUT/sub-agent
mkdir -p "$work"
cd "$work"
cp "$(command -v "$EXEQ")" exeq # the program that a sub-agent is started with
cat >agent.sh <<'AGENT'
echo "the agent plans" >plan
./exeq run --intent "carry the plan out" -- sh sub-agent.sh
AGENT
cat >sub-agent.sh <<'AGENT'
cp plan done
echo "carried out"
AGENT

test "$("$EXEQ" run --agent planner --proof "$OUT/agent.proof" -- sh agent.sh)" = "carried out"
if [ -z "${EXEQ_CONTROL-}" ]; then
    "$EXEQ" lineage
    child=$("$EXEQ" lineage --json | sed -n 's/.*"execution": "\(.*\)",/\1/p' | tail -1)
    "$EXEQ" proof -o "$OUT/sub-agent.proof" "$child"
    "$EXEQ" trust export -o "$OUT/trust.json"
    "$EXEQ" verify --trust "$OUT/trust.json" "$OUT/agent.proof"
    "$EXEQ" verify --trust "$OUT/trust.json" "$OUT/sub-agent.proof"
fi
