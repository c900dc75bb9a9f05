//! Small files that survive a crash at any moment: keys, pins, state.
//!
//! A file is replaced whole: written under a temporary name, forced to disk, renamed over the old one, and
//! the folder forced to disk too. Whoever reads sees the old content or the new one, never a mixture.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::net::Store;

/// A folder as a [`Store`].
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    /// One save at a time: all use the same temporary name.
    saving: Mutex<()>,
}

impl FileStore {
    /// The store in `folder`, which is made (mode 0700) where it is missing.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, saving: Mutex::new(()) })
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(only)), None) if only == name => Ok(self.folder.join(only)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file name"))),
        }
    }
}

impl Store for FileStore {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mode = file.metadata()?.mode();
        if mode & 0o077 != 0 {
            let path = path.display();
            tracing::warn!(%path, mode = format!("{:o}", mode & 0o777), "others may use this file: chmod 600 it");
        }
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
        if content.len() as u64 >= MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} is too large", path.display()),
            ));
        }
        Ok(Some(content))
    }

    fn save(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        replace_file(&path, content)
    }
}

/// Replaces the file at `path` whole by `content`, mode 0600, or leaves it as it was. What an earlier,
/// interrupted attempt left behind is cleared away. Not for use by several threads on the same path.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    let temporary = folder.join(temporary);

    let result = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
        return result;
    }
    // The rename is an entry of the folder: without this a power cut may undo it.
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // A new file has the mode that is asked for here; a leftover one would keep its own.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Far above any key or list of pins, far below what would hurt.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_only_the_owner_may() {
        let store = Scratch::new("saved");
        assert_eq!(store.load("key").unwrap(), None);
        store.save("key", b"one").unwrap();
        store.save("key", b"two").unwrap();
        assert_eq!(store.load("key").unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(mode(&store.folder().join("key")), 0o600);
        assert_eq!(mode(store.folder()), 0o700);
        assert_eq!(fs::read_dir(store.folder()).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn what_an_interrupted_save_left_behind_does_not_hurt() {
        let store = Scratch::new("leftover");
        store.save("pins", b"old").unwrap();
        let leftover = store.folder().join(".pins.tmp");
        fs::write(&leftover, "half of something much longer than what comes").unwrap();
        fs::set_permissions(&leftover, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(store.load("pins").unwrap().as_deref(), Some(&b"old"[..]));
        store.save("pins", b"new").unwrap();
        assert_eq!(store.load("pins").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(mode(&store.folder().join("pins")), 0o600);
        assert!(!leftover.exists());
    }

    #[test]
    fn a_failed_save_leaves_the_file_as_it_was() {
        let store = Scratch::new("failed");
        store.save("pins", b"old").unwrap();
        // Where the temporary file should go there is a folder, which no file replaces.
        fs::create_dir(store.folder().join(".pins.tmp")).unwrap();
        store.save("pins", b"new").unwrap_err();
        assert_eq!(store.load("pins").unwrap().as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let store = Scratch::new("names");
        for name in ["", ".", "..", "/etc/passwd", "../key", "sub/key", "key/"] {
            assert_eq!(store.save(name, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(store.load(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    /// A store in a folder of its own, removed with all in it.
    struct Scratch(FileStore);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("inp2p-store-{}-{name}", std::process::id()));
            Self(FileStore::open(folder).unwrap())
        }
    }

    impl std::ops::Deref for Scratch {
        type Target = FileStore;

        fn deref(&self) -> &FileStore {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.folder());
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }
}
