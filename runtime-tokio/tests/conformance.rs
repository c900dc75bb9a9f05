//! tokio passes every check of the kit.

inp2p_driver::runtime_conformance!(inp2p_runtime_tokio::TokioNet, inp2p_runtime_tokio::run);
