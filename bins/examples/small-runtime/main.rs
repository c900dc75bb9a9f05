//! `inp2pc demo` on a runtime of its own: `cargo run -p inp2p-bins --example small-runtime`.

mod runtime;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(runtime::run(1, |net| inp2p_bins::demo::run(net, "small"))??)
}
