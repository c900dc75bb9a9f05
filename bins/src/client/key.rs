//! The node key: the node's identity, made at the first start and never overwritten.

use std::path::Path;

use inp2p_core::auth::Identity;
use inp2p_driver::net::Store;
use tracing::info;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::files;

/// Reads the key out of `store`, or makes one where there is none. `folder` is where the store is, for
/// messages.
pub(super) fn load_or_make(store: &dyn Store, folder: &Path) -> Result<Identity, Failure> {
    let path = folder.join(FILE);
    let shown = path.display();
    let content = store.load(FILE).map_err(|error| {
        Failure::Usage(format!(
            "cannot read the node key {shown}: {}: make it readable",
            files::reason(&error)
        ))
    })?;
    if let Some(content) = content {
        let content = Zeroizing::new(content);
        // What is no UTF-8 is no key either; the machine-readable reason is in the error.
        let text = std::str::from_utf8(&content).unwrap_or("?");
        return Identity::from_file(text)
            .map_err(|error| Failure::Usage(format!("node key {shown}: {error}")));
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed)
        .map_err(|error| Failure::Failed(format!("no randomness for a node key: {error}")))?;
    let identity = Identity::from_seed(*seed);
    let content = Zeroizing::new(identity.to_file());
    store.save(FILE, content.as_bytes()).map_err(|error| {
        Failure::Usage(format!(
            "cannot write the node key {shown}: {}: let -config name a file in a folder that can be written",
            files::reason(&error)
        ))
    })?;
    info!(file = %shown, key = %identity.public(), "made a node key: keep it, it is this node's identity");
    Ok(identity)
}

/// Its name beside the configuration file.
const FILE: &str = "inp2pc.key";
