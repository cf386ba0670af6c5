# Shared by every script here: messages, root, the tree's paths, the binary, cargo. Source it.
# shellcheck shell=bash

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
ME=${0##*/}

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$ME" "$*" >&2; }
die() {
    warn "$*"
    exit 1
}

need_root() {
    [[ $EUID -eq 0 ]] || die "needs root, for network namespaces and AF_XDP: sudo scripts/$ME"
}

# The packet router to run: UNDERPASS_BIN, else a release build, else a debug build.
underpass_bin() {
    local candidate
    for candidate in "${UNDERPASS_BIN:-}" "$(target_dir)/release/underpass" "$(target_dir)/debug/underpass"; do
        [[ -n $candidate ]] || continue
        [[ -x $candidate ]] && { printf '%s\n' "$candidate"; return; }
        [[ $candidate != "${UNDERPASS_BIN:-}" ]] || die "UNDERPASS_BIN=$candidate is not an executable file"
    done
    die "no underpass binary under $(target_dir): run cargo build --release, or set UNDERPASS_BIN"
}

target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}"; }

# sudo's secure_path hides a cargo that rustup put into root's home.
cargo_on_path() {
    local bin=${CARGO_HOME:-$HOME/.cargo}/bin
    [[ :$PATH: == *":$bin:"* || ! -d $bin ]] || export PATH="$bin:$PATH"
}

# Under sudo, a build leaves files of root's in the user's tree, and the user's next build would fail.
give_back_target() {
    [[ -z ${SUDO_UID:-} || ! -d $ROOT/target ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$ROOT/target"
}

# wait_until SECONDS CMD...: polls CMD until it succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}
