#!/bin/sh
# Writes captures/*.txt: tshark's reading of captures, one line a packet, fields as in $fields, the
# values of outer and inner headers joined by commas.
#
#   tests/golden/captures.sh DIRECTORY    with the .pcap files
set -eu
out=$(dirname "$0")/captures
mkdir -p "$out"
fields="frame.len eth.src eth.dst eth.type ip.src ip.dst ip.ttl ip.id ip.len ip.proto ip.flags.df
    udp.srcport udp.dstport udp.length udp.checksum vxlan.vni arp.opcode icmp.type"
for capture in "$1"/*.pcap; do
    {
        echo "#" $fields
        # shellcheck disable=SC2046
        tshark -r "$capture" -d udp.port==8472,vxlan -T fields -E separator='|' \
            $(printf ' -e %s' $fields) 2>/dev/null
    } >"$out/$(basename "$capture" .pcap).txt"
done
