# TCP throughput per mode, and the report. Rounds go through all modes in turn, so that a machine that
# slows down or speeds up does so for all of them.
# shellcheck shell=bash

declare -A RATES

# One iperf3 run; adds what the receiver saw, in Mbit/s, to RATES[KEY].
measure() { # measure KEY POD POD
    local rate
    rate=$(in_ns "$2" timeout $((SECONDS_PER_RUN + 10)) iperf3 -J --connect-timeout 2000 -c "${POD_IP[$3]}" -t "$SECONDS_PER_RUN" 2>/dev/null |
        python3 -c 'import json, sys
print(round(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e6))' 2>/dev/null) || rate=
    if [[ -z $rate || $rate -eq 0 ]]; then
        FAILURES+=("throughput of $1: iperf3 $2 to $3 moved nothing")
        return
    fi
    RATES[$1]+="$rate "
}

median() { # median NUMBER...
    printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

cell() { # cell KEY BASE-KEY: "4.32 (100%)", the rate in Gbit/s and its share of the base
    local rate base
    # shellcheck disable=SC2086
    rate=$(median ${RATES[$1]:-})
    # shellcheck disable=SC2086
    base=$(median ${RATES[$2]:-})
    [[ -n $rate && -n $base ]] || { printf -- '-'; return; }
    awk -v rate="$rate" -v base="$base" 'BEGIN { printf "%.2f (%.0f%%)", rate / 1000, 100 * rate / base }'
}

throughput_table() {
    local row name
    printf '| %-25s | %-21s | %-21s | %-21s |\n' 'TCP, Gbit/s (of native)' 'pod1 to pod2, AF_XDP' 'pod1 to pod3, AF_XDP' 'pod1 to pod2, TUN'
    printf '|---------------------------|-----------------------|-----------------------|-----------------------|\n'
    for row in native-offloads native "${MODES[@]}"; do
        name=$row
        case $row in
            native) name='native, offloads off' ;;
            native-offloads) name='native, offloads on' ;;
        esac
        printf '| %-25s | %-21s | %-21s | %-21s |\n' "$name" "$(cell "xdp $row pod2" 'xdp native pod2')" \
            "$(cell "xdp $row pod3" 'xdp native pod3')" "$(cell "tun $row pod2" 'xdp native pod2')"
    done
}

write_report() {
    say "# Throughput between the lab's pods"
    say
    machine_description
    say
    throughput_table
    cat <<TEXT

One TCP flow by iperf3, $SECONDS_PER_RUN s a run, the receiver's figure; median of $ROUNDS rounds, the modes in turn
within each round. pod1 and pod2 share a subnet, pod3 is behind the fabric's router. Pods' MTU is $POD_MTU in
every mode. Native is the kernel's routing without encapsulation or underpass; with offloads off it
carries the same finished packets, one by one, as every row below it, which is what percentages are of.
Sender, receiver and two routers share the machine's CPUs. In the cross modes pod1 to pod2 is direct.
TEXT
    runs_table
}

runs_table() {
    local key
    printf '\nEvery run, Mbit/s:\n\n'
    for key in "${!RATES[@]}"; do printf '    %-26s %s\n' "$key" "${RATES[$key]}"; done | sort
}

machine_description() {
    local commit version
    commit=$(git -c safe.directory="$ROOT" -C "$ROOT" describe --always --dirty --exclude '*' 2>/dev/null || say unknown)
    [[ -z ${UNDERPASS_BIN:-} ]] || commit="unknown (UNDERPASS_BIN=${UNDERPASS_BIN##*/})"
    version=$("$(underpass_bin)" --version 2>/dev/null || true)
    say "- date: $(date -u '+%Y-%m-%d %H:%M UTC')"
    say "- underpass: commit $commit, ${version:-version unknown}"
    say "- CPU: $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(virtualisation)"
    say "- memory: $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    say "- kernel: $(uname -sr), $(. /etc/os-release && say "$PRETTY_NAME")"
}

virtualisation() {
    if grep -qw hypervisor /proc/cpuinfo; then say 'virtual machine'; else say 'no hypervisor seen'; fi
}
