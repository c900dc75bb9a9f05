# The checks of this project. `.ci/run` calls the same recipes.

# What there is.
default:
    @just --list --unsorted

# Everything that has to be right before a change lands.
all: test ci

# All checks but the tests, which .ci/run runs by the README's own command.
ci: fmt lint doc purity runtimes demo programs stun-clients ci-sim lab

# The sweeps of the simulator, its speed, and the table of NAT pairs against docs/nat.md.
ci-sim: sim-same sim (sim-deaths "800") sim-punching sim-speed nat-table-check

# Type-check everything.
check:
    cargo check --workspace --all-targets --locked
    cargo check -p inp2p-bins --test programs --test stun_clients --test nat_lab --locked

# Formatting.
fmt:
    cargo fmt --all --check

# Lints, without exceptions.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy -p inp2p-bins --test programs --test stun_clients --test nat_lab --locked -- -D warnings

# Documentation, without broken links.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# All tests.
test:
    cargo test --workspace --locked

# No runtime in the core and the driver, and no sockets in the core.
purity:
    #!/usr/bin/env bash
    set -euo pipefail
    # Every package in the tree of $1, as `name features`.
    tree() { cargo tree --locked -p "$1" -e normal --prefix none --format '{p} {f}' | sed -E 's/ v[^ ]+( \(.*\))?//' | sort -u; }
    check() {
        local package=$1 banned=$2 allowed=$3 all found
        all=$(tree "$package")
        found=$(grep -E "^($banned)( |$)" <<<"$all" | grep -vxE "$allowed" || true)
        if [ -n "$found" ]; then
            echo "$package must not depend on: $(tr '\n' ';' <<<"$found")" >&2
            exit 1
        fi
        echo "$package: none of $banned"
    }
    check inp2p-core 'tokio|smol|async-io|async-std|mio|socket2' ''
    # hyper cannot be had without tokio's channels (its feature `sync`). They need no runtime, and without the
    # features `rt`, `net` and `time` there is none.
    check inp2p-driver 'tokio|smol|async-io|async-std|mio' 'tokio (default,)?sync( \(\*\))?'
    if cargo tree --locked -p inp2p-driver -e normal --depth 1 --prefix none | grep -E '^(tokio|smol|async-io|async-std|mio) '; then
        echo "inp2p-driver names a runtime" >&2
        exit 1
    fi
    # The example is a runtime itself; QUIC alone, which the benchmark compares with, is quinn on tokio.
    if grep -rnE 'inp2p_runtime_|\b(tokio|smol|async_std|async_io|async_executor|mio)::' --include='*.rs' core sim bins |
        grep -vE '^bins/(src/run.rs|examples/small-runtime/|benches/forward/quic.rs)'; then
        echo "only bins/src/run.rs may name a runtime" >&2
        exit 1
    fi
    echo "runtimes are named in bins/src/run.rs alone"

# Every set of runtimes compiles, the kit passes on async-std too, and all of the programs' tests with each runtime and
# with different ones on the two ends, each set within ten minutes. On tokio alone `test` has run them.
runtimes:
    #!/usr/bin/env bash
    set -euo pipefail
    for set in tokio smol async-std tokio,smol tokio,async-std smol,async-std tokio,smol,async-std; do
        echo "inp2p-bins with $set"
        cargo check -q --locked -p inp2p-bins --no-default-features --features "$set"
    done
    cargo check -q --locked -p inp2p-bins --no-default-features --lib
    cargo test -q --locked -p inp2p-runtime-smol --features async-std --test async_std
    tests=(--test demo --test flood --test forward --test http_only --test refuse --test relays --test restart)
    tests+=(--test secrets --test shares --test streams)
    cargo test -q --locked --no-run -p inp2p-bins --features async-std "${tests[@]}"
    for runtimes in smol async-std,smol,tokio; do
        echo "programs on $runtimes"
        # They take two minutes; what hangs has to end.
        TEST_RUNTIMES=$runtimes timeout 600 cargo test -q --locked -p inp2p-bins --features async-std "${tests[@]}"
    done

# Both programs without shared libraries, in target/TRIPLE/release.
static:
    #!/usr/bin/env bash
    set -euo pipefail
    triple=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p inp2p-bins --bins --target "$triple"
    for program in inp2ps inp2pc; do
        path=target/$triple/release/$program
        if readelf -d "$path" | grep NEEDED; then
            echo "$path needs shared libraries" >&2
            exit 1
        fi
        echo "$path"
    done

# Server, two nodes and a forwarded port on this machine: the main job.
demo:
    cargo run --release --locked --bin inp2pc -- demo

# OpenSSH, nginx under wrk, PostgreSQL under pgbench and curl through a forward.
programs: programs-install
    cargo test --release --locked -p inp2p-bins --test programs

# Installs what `programs` needs, where that is possible; what is missing then is skipped by name.
programs-install: (install "openssh-server openssh-client nginx-light wrk postgresql curl")

# STUN clients of other makers against our server: coturn's, aiostun, aioice; and tshark on what passes.
stun-clients: stun-clients-install
    INP2P_STUN_PYTHON="$PWD/target/stun-clients/bin/python" cargo test --release --locked -p inp2p-bins --test stun_clients

# Installs what `stun-clients` needs, where that is possible; what is missing then is skipped by name.
stun-clients-install: (install "coturn tshark python3-venv")
    #!/usr/bin/env bash
    set -euo pipefail
    python=target/stun-clients/bin/python
    if ! "$python" -c 'import aiostun, aioice' 2>/dev/null; then
        { python3 -m venv target/stun-clients && "$python" -m pip install -q aiostun==0.6.1 aioice==0.13.0; } || true
    fi

# The programs behind NATs of the Linux kernel, in network namespaces: each pair of NATs once, with 10 MiB.
lab: lab-install
    cargo test --release --locked -p inp2p-bins --test nat_lab

# Each pair ten times with 100 MiB, events 20 times, and everything once on other runtimes: in slices, of the checks
# whose names hold `filter`. A slice goes on where the last one ended, and puts what there is so far into docs/lab.md.
lab-full minutes="30" filter="": lab-install
    cargo test --release --locked -p inp2p-bins --test nat_lab -- "{{filter}}" --full --minutes {{minutes}} \
        --results {{justfile_directory()}}/target/lab-full.tsv --table {{justfile_directory()}}/docs/lab.md

# Installs what `lab` needs, where that is possible; without it the lab is skipped by name.
lab-install: (install "iproute2 nftables conntrack openssh-server openssh-client")

# Installs Debian packages that are missing, as root and where there is apt-get.
[private]
install packages:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        missing=()
        for package in {{packages}}; do
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

# What a forward costs on each rung beside raw sockets and HAProxy, then the multiplexer alone and the simulator.
bench *arguments:
    cargo bench --locked -p inp2p-bins --bench forward -- {{arguments}}
    cargo bench --locked -p inp2p-core --bench mux
    cargo bench --locked -p inp2p-bins --bench stun
    cargo run --release --locked -p inp2p-sim --example speed

# Sweeps seeds over all processors; ends with one line, `hash HEX` over all of them.
sim seeds="2000":
    cargo run -q --release --locked -p inp2p-sim --bin sim -- sweep {{seeds}}

# How often, how soon and with how many probes each pair of NATs is punched, on lines that lose nothing, 5 and 20 %; or
# those pairs that the NAT of that name is one of.
sim-punching seeds="100" nat="":
    cargo run -q --release --locked -p inp2p-sim --bin sim -- punching {{seeds}} {{nat}}

# Sweeps flows whose links die, in all the ways there are, and says how long they stood still.
sim-deaths seeds="10000" first="0":
    cargo run -q --release --locked -p inp2p-sim --bin sim -- deaths {{seeds}} {{first}}

# Runs one seed, or a scenario's line, and shows all that happened: who sent what to whom, and every log line.
sim-replay seed:
    cargo run -q --release --locked -p inp2p-sim --bin sim -- replay "{{seed}}"

# Makes a seed that fails as small as it can be.
sim-shrink seed:
    cargo run -q --release --locked -p inp2p-sim --bin sim -- shrink {{seed}}

# The same seeds give the same hash in two processes, and in debug and release.
sim-same seeds="200":
    #!/usr/bin/env bash
    set -euo pipefail
    hash() { cargo run -q --locked "$@" -p inp2p-sim --bin sim -- sweep {{seeds}} | tail -1; }
    release=$(hash --release)
    again=$(hash --release)
    debug=$(hash)
    echo "release $release, release $again, debug $debug"
    [ "$release" = "$again" ] && [ "$release" = "$debug" ]

# A server with 20 nodes runs at 500 times real time at least.
sim-speed:
    cargo run -q --release --locked -p inp2p-sim --example speed

# Puts the table of NAT pairs, as the simulator finds it, into docs/nat.md.
nat-table:
    cargo run -q --release --locked -p inp2p-sim --bin sim -- nat-table docs/nat.md

# Whether the table in docs/nat.md is what the simulator finds.
nat-table-check:
    cargo run -q --release --locked -p inp2p-sim --bin sim -- nat-table-check docs/nat.md
