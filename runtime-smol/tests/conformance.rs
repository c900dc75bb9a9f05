//! smol passes every check of the kit.

inp2p_driver::runtime_conformance!(inp2p_runtime_smol::SmolNet, inp2p_runtime_smol::run);
