#!/bin/sh
# Oversight: see what runs, end it, ask why, try another policy on what was
# recorded, and walk the whole log for what no single proof can show.
. "$(dirname "$0")/../common.sh"

work=$OUT/oversight
mkdir -p "$work"
cd "$work"
if [ -n "${EXEQ_CONTROL-}" ]; then exit 0; fi # there is nothing to oversee without

"$EXEQ" init
"$EXEQ" run --intent "wait for ever" -- sh -c 'setsid sleep 1000 & echo up >up; sleep 1000' &
until [ -s up ]; do
    kill -0 $! # it still runs
    sleep 0.1
done
"$EXEQ" ps
id=$("$EXEQ" ps --json | sed -n 's/.*"execution": "\(.*\)",/\1/p')
"$EXEQ" revoke --reason "it waits for ever" "$id"
if wait $!; then exit 1; else test $? = 137; fi
"$EXEQ" why "$id"
"$EXEQ" log

# What would another policy have said?
mkdir candidate
cp "$EXEQ_STATE"/policy/* candidate
cat >candidate/no-shell.cedar <<'POLICY'
@id("no-shell")
forbid (principal, action == Exeq::Action::"run", resource)
when { resource.name == "sh" || resource.name == "dash" };
POLICY
"$EXEQ" policy check candidate
"$EXEQ" policy diff "$EXEQ_STATE/policy" candidate
"$EXEQ" policy replay candidate

"$EXEQ" trust export -o "$OUT/trust.json"
"$EXEQ" monitor --trust "$OUT/trust.json" --seen "$OUT/seen"
"$EXEQ" run -- true
"$EXEQ" proof -o "$OUT/revoked.proof" "$id"
"$EXEQ" verify --trust "$OUT/trust.json" "$OUT/revoked.proof"
"$EXEQ" monitor --trust "$OUT/trust.json" --seen "$OUT/seen"
