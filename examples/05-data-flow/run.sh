#!/bin/sh
# Data flow: what may go out depends on what was read. Before customer data is
# read a partner's server is reached, afterwards it is not, and the record says
# which rule decided.
. "$(dirname "$0")/../common.sh"

work=$OUT/data-flow
mkdir -p "$work/customers" "$work/out"
cd "$work"
echo "Ann, 1 Main Street" >customers/list
echo "42 visits" >numbers
start "$work/address" python3 -u -c '
import http.server
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(s.server_port)
s.serve_forever()'
port=$(cat "$work/address")

# The partner stands on this machine, which no policy means unless it names the
# very address and port.
cp -R "$here/policy" "$OUT/flow.policy"
sed -i "s/127.0.0.1:9/127.0.0.1:$port/" "$OUT"/flow.policy/*
"$EXEQ" policy check "$OUT/flow.policy"
"$EXEQ" policy test "$OUT/flow.policy"

# send NAME FILE governs a program that reads FILE and then sends it out; it
# prints the status that the program got.
send() {
    "$EXEQ" run --policy "$OUT/flow.policy" --proof "$OUT/$1.proof" -- sh -c "
        curl -s -w '\n%{http_code}\n' --data-binary @$2 http://127.0.0.1:$port/" | tail -n 1
}
test "$(send numbers numbers)" = 200
if [ -z "${EXEQ_CONTROL-}" ]; then
    test "$(send customers customers/list)" = 403 # the proxy's answer
    "$EXEQ" log | grep 'deny by no-leak'
else
    test "$(send customers customers/list)" = 200 # it does leak
fi
"$EXEQ" trust export -o "$OUT/trust.json"
"$EXEQ" verify --trust "$OUT/trust.json" "$OUT/numbers.proof"
"$EXEQ" verify --trust "$OUT/trust.json" "$OUT/customers.proof"
