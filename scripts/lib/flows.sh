# Traffic between the lab's pods, and whether it arrived whole. Source it after links.sh.
# shellcheck shell=bash

WEB_PORT=8080
PAYLOAD_BYTES=$((10 * 1000 * 1000))
# What did not work, a line each.
FAILURES=()

# serve_pods DIRECTORY: a web server and an iperf3 server in every pod; they go down with the lab.
serve_pods() {
    local pod
    for pod in "${PODS[@]}"; do
        make_payload "$1/$pod" "$pod"
        # No output of the script's own: a reader at the end of a pipe would wait for the server.
        (cd "$1/$pod" && exec ip netns exec "$(namespace_of "$pod")" python3 -c "$WEB_SERVER" "$WEB_PORT") \
            </dev/null >/dev/null 2>&1 &
        in_ns "$pod" iperf3 -s -D >/dev/null
    done
    for pod in "${PODS[@]}"; do
        wait_until 10 pod_serves "$pod" || die "$pod: its servers do not listen"
    done
}

# http.server's own main asks the DNS for the host's name, which no pod can reach.
WEB_SERVER='
import http.server, socketserver, sys
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
class Handler(http.server.SimpleHTTPRequestHandler):
    def address_string(self): return self.client_address[0]
Server(("", int(sys.argv[1])), Handler).serve_forever()'

make_payload() { # make_payload DIRECTORY POD
    mkdir -p "$1"
    printf '<h1>%s</h1>\n' "$2" >"$1/index.html"
    head -c "$PAYLOAD_BYTES" /dev/urandom >"$1/payload"
    sha256sum <"$1/payload" >"$1/payload.sha256"
}

pod_serves() {
    [[ $(in_ns "$1" ss -Hltn "sport = :$WEB_PORT or sport = :5201" | wc -l) -ge 2 ]]
}

# Each check is quiet, bounded in time, and says by its status whether the traffic arrived.
ping_from() { # ping_from NAME ADDRESS
    in_ns "$1" ping -q -c 3 -i 0.05 -W 1 "$2" >/dev/null 2>&1
}

web_from() { # web_from POD POD: the page names the pod that serves it
    [[ $(fetch "$1" "$2" index.html) == "<h1>$2</h1>" ]]
}

tcp_from() { # tcp_from POD POD: pseudo-random bytes, compared by their digest
    [[ $(fetch "$1" "$2" payload | sha256sum) == "$(<"$SERVED/$2/payload.sha256")" ]]
}

fetch() { # fetch POD POD FILE
    in_ns "$1" curl -sS --noproxy '*' --connect-timeout 2 --max-time 20 "http://${POD_IP[$2]}:$WEB_PORT/$3" 2>/dev/null
}

# try LABEL CMD...: prints one outcome and remembers a failure.
try() {
    local label=$1
    shift
    if "$@"; then
        printf '  %s ok' "$label"
    else
        printf '  %s FAILED' "$label"
        FAILURES+=("$CONTEXT: $label ($*)")
    fi
}

try_mode() { # try_mode NAME: every kind of traffic, to the same and to another subnet
    CONTEXT=$1
    local pair
    printf '  ping     '
    for pair in 'pod1 pod2' 'pod1 pod3' 'pod3 pod0' 'worker1 pod2' 'worker1 pod3'; do
        try "${pair/ /→}" ping_from "${pair% *}" "${POD_IP[${pair#* }]}"
    done
    try 'pod1→worker1' ping_from pod1 "${NODE_IP[worker1]}"
    printf '\n  TCP 10 MB'
    for pair in 'pod1 pod2' 'pod2 pod1' 'pod1 pod3' 'pod3 pod1'; do try "${pair/ /←}" tcp_from ${pair% *} ${pair#* }; done
    printf '\n  web      '
    for pair in 'pod1 pod2' 'pod1 pod3' 'pod0 pod1'; do try "${pair/ /→}" web_from ${pair% *} ${pair#* }; done
    printf '\n'
}
