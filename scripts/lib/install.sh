# Files to install, of Cargo.toml's [package.metadata.deb]. Source it after common.sh.
# shellcheck shell=bash

# What is installed: UNDERPASS_BIN, else a release of the tree as it is now. Where there is no cargo (under
# sudo, a user's own), a release that is there already does.
build_release() {
    [[ -z ${UNDERPASS_BIN:-} ]] || return 0
    cargo_on_path
    command -v cargo >/dev/null || [[ ! -x $(target_dir)/release/underpass ]] || return 0
    bash "$ROOT/scripts/setup" build
    cargo_on_path
    (cd "$ROOT" && cargo build --release --locked)
    give_back_target
}

# install_files ROOT: every asset, and manual pages, below ROOT.
install_files() {
    local source target mode file
    while IFS=$'\t' read -r source target mode; do
        [[ $source != target/release/underpass ]] || source=$(underpass_bin)
        for file in $(cd "$ROOT" && compgen -G "$source"); do
            [[ $file == /* ]] || file=$ROOT/$file
            case $target in
                */) install -D -m "$mode" "$file" "$1/$target$(basename "$file")" ;;
                *) install -D -m "$mode" "$file" "$1/$target" ;;
            esac
        done
    done < <(assets)
    mkdir -p "$1/usr/share/man/man1"
    "$(underpass_bin)" man "$1/usr/share/man/man1" >/dev/null
}

# SOURCE, TARGET and MODE of each file, and fields of the package.
assets() { package_data 'print("\n".join("\t".join(asset) for asset in deb["assets"]))'; }
package_field() { package_data "print(deb.get('$1') or package.get('$1', ''))"; }

package_data() {
    python3 - "$ROOT/Cargo.toml" <<PYTHON
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    package = tomllib.load(file)["package"]
deb = package["metadata"]["deb"]
$1
PYTHON
}
