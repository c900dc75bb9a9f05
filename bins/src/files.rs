//! Small files, read with reasons that a person can act on, and written whole or not at all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inp2p_driver::os::{FileStore, replace_file};
use tracing::warn;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The folder that holds `path`.
pub(crate) fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Replaces the file at `path`, mode 0600.
pub(crate) fn save(path: &Path, content: &[u8]) -> Result<(), Failure> {
    replace_file(path, content)
        .map_err(|error| Failure::Usage(format!("cannot write {}: {}", path.display(), reason(&error))))
}

/// Reads a file that a flag names.
pub(crate) fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut content)).map_err(|error| {
        Failure::Usage(format!("-{flag}: cannot read {}: {}", path.display(), reason(&error)))
    })?;
    Ok(content)
}

/// Reads a file of secret text that a flag names; it is wiped from memory when dropped.
pub(crate) fn read_secret(flag: &str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    let content = read(flag, path)?;
    warn_if_open_to_others(path);
    String::from_utf8(content)
        .map(Zeroizing::new)
        .map_err(|_| Failure::Usage(format!("-{flag}: {} is not UTF-8 text", path.display())))
}

/// The small files of `folder`, which is made for its owner only where it is missing. `flag` names it.
pub(crate) fn store(flag: &str, folder: PathBuf) -> Result<Arc<FileStore>, Failure> {
    let shown = folder.display().to_string();
    FileStore::open(folder).map(Arc::new).map_err(|error| {
        Failure::Usage(format!("-{flag}: cannot make the folder {shown}: {}", reason(&error)))
    })
}

/// Says so where others on this machine can read a file that holds a secret.
pub(crate) fn warn_if_open_to_others(path: &Path) {
    // systemd hands credentials over in files that only look open: their folder is closed.
    let Ok(meta) = path.metadata() else { return };
    let closed_folder = folder(path).metadata().is_ok_and(|folder| folder.mode() & 0o077 == 0);
    if meta.mode() & 0o044 != 0 && !closed_folder {
        warn!(file = %path.display(), "others on this machine can read this file and its secret: chmod 600 it");
    }
}

/// An I/O error as people say it, without Rust's error number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

/// Certificates, tokens, passwords: all far below 1 MiB.
const MAX_BYTES: u64 = 1 << 20;
