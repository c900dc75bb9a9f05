//! The files of a host, which outlive its crashes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use inp2p_driver::net::Store;

use crate::executor::lock;

/// The files of one simulated host. A write is whole or has not happened, as [`Store`] demands.
#[derive(Debug, Default)]
pub struct SimStore(Mutex<BTreeMap<String, Vec<u8>>>);

impl Store for SimStore {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.0).get(name).cloned())
    }

    fn save(&self, name: &str, content: &[u8]) -> io::Result<()> {
        lock(&self.0).insert(name.to_owned(), content.to_owned());
        Ok(())
    }
}
