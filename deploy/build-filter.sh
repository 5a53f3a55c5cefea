#!/usr/bin/env bash
# Builds the filter, evenkeel.wasm, and prints its path as the last line of standard output. Everything else goes to standard error.
#
#   deploy/build-filter.sh            build
#   deploy/build-filter.sh --way      only say which way would be used
#
# The target wasm32-wasip1 is the one hard part of building this project. The ways, in order:
#   installed   the toolchain has its standard library
#   rustup      `rustup target add wasm32-wasip1` succeeds within RUSTUP_TIMEOUT_S
#   debian      Debian's rustc-web builds the standard library from rust-web-src; missing packages are installed by root only.
#               It also comes before rustup when its packages are already there, so that no build asks the network for what it has.
# EVENKEEL_WASM_TOOLCHAIN=installed|rustup|debian forces one.
# EVENKEEL_FILTER_FEATURES=bench builds what is measured and never shipped; give it a CARGO_TARGET_DIR of its own.
#
# This runs inside sidecar/build.rs while cargo holds the lock of its target directory: the filter has a target directory of its
# own below that one, and nothing of the outer cargo's environment is inherited.
set -euo pipefail

readonly TARGET=wasm32-wasip1
readonly RUSTUP_TIMEOUT_S=60
readonly APT_TIMEOUT_S=600
readonly DEBIAN_PACKAGES=(rustc-web rust-web-src libstd-rust-web-dev wasi-libc)
readonly DEBIAN_RUSTC=/usr/bin/rustc
readonly WASI_LIBC=/usr/lib/wasm32-wasi

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/filter
# Inside a build script this is the very cargo that runs it.
readonly CARGO_BIN=${CARGO:-cargo}

say() { echo "build-filter: $*" >&2; }

fail() {
    echo "build-filter: error: $*" >&2
    exit 1
}

forget_outer_cargo() {
    local name
    if [[ -n ${OUT_DIR:-} ]]; then
        unset LD_LIBRARY_PATH # the outer toolchain's libraries, set by cargo for build scripts
    fi
    while read -r name; do
        case $name in
        CARGO_HOME | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRIES_* | CARGO_REGISTRY_* | CARGO_SOURCE_* | CARGO_TERM_*) ;;
        RUSTUP_*) ;;
        CARGO | CARGO_* | RUSTC | RUSTC_* | RUSTDOC | RUSTDOCFLAGS | RUSTFLAGS) unset "$name" ;;
        DEP_* | OUT_DIR | HOST | NUM_JOBS | OPT_LEVEL | PROFILE | DEBUG | MAKEFLAGS | MFLAGS) unset "$name" ;;
        esac
    done < <(compgen -e)
}

has_installed_target() {
    local lib
    lib=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) || return 1
    compgen -G "$lib/libstd-*.rlib" >/dev/null
}

has_debian_target() {
    local sysroot
    [[ -x $DEBIAN_RUSTC && -d $WASI_LIBC ]] || return 1
    sysroot=$("$DEBIAN_RUSTC" --print sysroot 2>/dev/null) || return 1
    [[ -d $sysroot/lib/rustlib/src/rust/library/std ]] && debian_linker >/dev/null
}

# The linker comes with rustup's toolchain; Debian's own is the second choice.
debian_linker() {
    local found
    found=$(compgen -G "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/*/bin/rust-lld" | head -n 1) || true
    [[ -n $found ]] || found=$(command -v rust-lld || command -v wasm-ld) || return 1
    echo "$found"
}

add_rustup_target() {
    command -v rustup >/dev/null || return 1
    say "asking rustup for $TARGET (at most $RUSTUP_TIMEOUT_S s)"
    timeout "$RUSTUP_TIMEOUT_S" rustup target add "$TARGET" >&2 || return 1
    has_installed_target
}

add_debian_packages() {
    command -v apt-get >/dev/null || return 1
    [[ $(id -u) -eq 0 ]] || return 1
    say "installing ${DEBIAN_PACKAGES[*]}"
    export DEBIAN_FRONTEND=noninteractive
    timeout "$APT_TIMEOUT_S" apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}" >&2 ||
        { timeout "$APT_TIMEOUT_S" apt-get update >&2 &&
            timeout "$APT_TIMEOUT_S" apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}" >&2; } || return 1
    has_debian_target
}

# Prints `installed` or `debian`: the two ways there are to compile, once the target is there.
choose_way() {
    case ${EVENKEEL_WASM_TOOLCHAIN:-} in
    installed)
        has_installed_target || fail "this toolchain has no $TARGET; run: rustup target add $TARGET"
        echo installed
        ;;
    rustup)
        has_installed_target || add_rustup_target || fail "rustup could not add $TARGET; run: rustup target add $TARGET"
        echo installed
        ;;
    debian)
        has_debian_target || add_debian_packages ||
            fail "Debian's wasm toolchain is not there; run as root: apt-get install ${DEBIAN_PACKAGES[*]}"
        echo debian
        ;;
    "")
        if has_installed_target; then
            echo installed
        elif has_debian_target; then
            echo debian
        elif add_rustup_target; then
            echo installed
        elif add_debian_packages; then
            echo debian
        else
            fail "nothing here compiles for $TARGET; run: rustup target add $TARGET" \
                "(or, as root on Debian: apt-get install ${DEBIAN_PACKAGES[*]})"
        fi
        ;;
    *)
        fail "EVENKEEL_WASM_TOOLCHAIN is '$EVENKEEL_WASM_TOOLCHAIN'; it can be installed, rustup or debian"
        ;;
    esac
}

build() {
    local way=$1
    local profile=release
    ! grep -q '^\[profile\.filter\]' "$ROOT/Cargo.toml" || profile=filter
    local arguments=(build --manifest-path "$ROOT/Cargo.toml" --package evenkeel-plugin --target "$TARGET"
        --profile "$profile" --target-dir "$TARGET_DIR/$way" --features "${EVENKEEL_FILTER_FEATURES:-}")
    if [[ $way == debian ]]; then
        RUSTC=$DEBIAN_RUSTC RUSTC_BOOTSTRAP=1 \
            CARGO_TARGET_WASM32_WASIP1_LINKER=$(debian_linker) \
            CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-Clink-self-contained=no -L$WASI_LIBC" \
            "$CARGO_BIN" "${arguments[@]}" -Zbuild-std=std,panic_abort --ignore-rust-version >&2
    else
        "$CARGO_BIN" "${arguments[@]}" >&2
    fi || fail "the filter does not compile (way: $way)"
    local built=$TARGET_DIR/$way/$TARGET/$profile/evenkeel.wasm
    [[ -s $built ]] || fail "cargo succeeded, but $built is not there"
    echo "$built"
}

main() {
    forget_outer_cargo
    local way
    way=$(choose_way)
    case ${1:-} in
    "") build "$way" ;;
    --way) echo "$way" ;;
    *) fail "unknown argument '$1'; usage: deploy/build-filter.sh [--way]" ;;
    esac
}

main "$@"
