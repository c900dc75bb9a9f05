# The checks of this project. `.ci/run` calls the same recipes.

# What there is.
default:
    @just --list --unsorted

# Everything that has to be right before a change lands.
all: test ci

# All checks but the tests, which .ci/run runs by the README's own command.
ci: fmt lint doc purity demo programs

# Type-check everything.
check:
    cargo check --workspace --all-targets --locked
    cargo check -p inp2p-bins --test programs --locked

# Formatting.
fmt:
    cargo fmt --all --check

# Lints, without exceptions.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy -p inp2p-bins --test programs --locked -- -D warnings

# Documentation, without broken links.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# All tests.
test:
    cargo test --workspace --locked

# The core and the driver name no runtime, the core no sockets either.
purity:
    #!/usr/bin/env bash
    set -euo pipefail
    names() { cargo tree --locked -p "$1" -e normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u; }
    check() {
        local package=$1 banned=$2 all found
        all=$(names "$package")
        found=$(grep -Ex "$banned" <<<"$all" || true)
        if [ -n "$found" ]; then
            echo "$package depends on $(echo "$found" | tr '\n' ' ')" >&2
            exit 1
        fi
        echo "$package: none of $banned"
    }
    check inp2p-core 'tokio|smol|async-io|async-std|mio|socket2'
    check inp2p-driver 'tokio|smol|async-io|async-std|mio'

# Server, two nodes and a forwarded port on this machine: the main job.
demo:
    cargo run --release --locked --bin inp2pc -- demo

# OpenSSH, nginx under wrk, PostgreSQL under pgbench and curl through a forward.
programs: programs-install
    cargo test --release --locked -p inp2p-bins --test programs

# Installs what `programs` needs, where that is possible; what is missing then is skipped by name.
programs-install:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        packages=(openssh-server openssh-client nginx-light wrk postgresql curl)
        missing=()
        for package in "${packages[@]}"; do
            dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
        done
        if [ ${#missing[@]} -gt 0 ]; then
            # The servers are started by the tests, on ports of their own: not by their packages.
            policy=/usr/sbin/policy-rc.d
            if [ ! -e "$policy" ]; then
                printf '#!/bin/sh\nexit 101\n' > "$policy"
                chmod +x "$policy"
                trap 'rm -f "$policy"' EXIT
            fi
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
        fi
    fi

# What can be measured today: the multiplexer alone, the simulator, one forward on this machine.
bench:
    cargo bench --locked -p inp2p-core --bench mux
    cargo run --release --locked -p inp2p-sim --example speed
    cargo run --release --locked --bin inp2pc -- demo
