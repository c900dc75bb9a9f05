//! async-std passes every check of the kit.
#![cfg(feature = "async-std")]

inp2p_driver::runtime_conformance!(
    inp2p_runtime_smol::async_std::AsyncStdNet,
    inp2p_runtime_smol::async_std::run
);
