//! One program per configuration folder.
//!
//! `cluster.lock` is the file the reference locks, in the same way: a POSIX write lock on the whole of it. So a
//! peer of either kind keeps the other out. The file is empty and goes away on release; one that is left after a
//! crash holds no lock and does no harm.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cluster_compat::config::{go_error, make_folder};
use rustix::fs::{FlockOperation, fcntl_lock};

/// Name of the file in the configuration folder.
const NAME: &str = "cluster.lock";

/// How often the file may vanish between opening and locking, as others release it, before that is an error.
const MAX_ATTEMPTS: usize = 16;

/// The lock of a folder. Dropping it releases it; [`Lock::release`] also tells whether that went well.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it gives up the lock. The system also gives it up when any other descriptor of this file in this
    /// process is closed, so nothing else may open the file.
    file: Option<File>,
}

impl Lock {
    /// Locks `folder`, which is made if it is missing. The error is the reference's text.
    pub fn take(folder: &Path) -> Result<Self, String> {
        // A folder that cannot be made shows in the error of the file.
        let _ = make_folder(folder);
        let path = folder.join(NAME);
        for _ in 0..MAX_ATTEMPTS {
            let file = open(&path).map_err(|reason| go_error("lock", &path, &reason))?;
            let meta = file.metadata().map_err(|reason| go_error("lock", &path, &reason))?;
            if meta.len() > 0 {
                return Err(format!("cannot acquire lock: can't Lock file {:?}: has non-zero size", path));
            }
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                    return Err(format!("lock {}: someone else has the lock", path.display()));
                }
                Err(reason) => return Err(go_error("lock", &path, &reason.into())),
            }
            // Who released it in between has removed the file: then the lock is on a file nobody else will find.
            if std::fs::metadata(&path).is_ok_and(|now| now.ino() == meta.ino() && now.dev() == meta.dev()) {
                return Ok(Self { path, file: Some(file) });
            }
        }
        Err(format!("lock {}: someone else has the lock", path.display()))
    }

    /// Fails where another process holds the lock of `folder`.
    pub fn check(folder: &Path) -> Result<(), String> {
        if folder.join(NAME).exists() { Self::take(folder)?.release() } else { Ok(()) }
    }

    /// Removes the file and gives up the lock.
    pub fn release(mut self) -> Result<(), String> {
        self.close()
    }

    fn close(&mut self) -> Result<(), String> {
        // Removed while still locked, so that nobody's new file is removed.
        match self.file.take() {
            None => Ok(()),
            Some(_file) => match std::fs::remove_file(&self.path) {
                Err(reason) if reason.kind() != io::ErrorKind::NotFound => {
                    Err(go_error("remove", &self.path, &reason))
                }
                _ => Ok(()),
            },
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(reason) = self.close() {
            tracing::warn!(target: "service", "{reason}");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o666).open(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Names the folder to the other process.
    const FOLDER: &str = "CLUSTER_TEST_LOCK_FOLDER";

    /// Tries the lock in another process, as a process never refuses itself a POSIX lock: this program again,
    /// running only one of the next tests.
    fn succeeds_elsewhere(test: &str, folder: &Path) -> bool {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", &format!("daemon::lock::tests::{test}")]);
        other.env(FOLDER, folder).output().unwrap().status.success()
    }

    fn is_free_for_others(folder: &Path) -> bool {
        succeeds_elsewhere("another_process_takes_the_lock_it_is_told_to", folder)
    }

    fn is_checked_as_free_by_others(folder: &Path) -> bool {
        succeeds_elsewhere("another_process_checks_the_lock_it_is_told_to", folder)
    }

    #[test]
    fn another_process_checks_the_lock_it_is_told_to() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            Lock::check(Path::new(&folder)).unwrap();
        }
    }

    #[test]
    fn another_process_takes_the_lock_it_is_told_to() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            Lock::take(Path::new(&folder)).unwrap();
        }
    }

    #[test]
    fn a_lock_makes_the_folder_keeps_others_out_and_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("deep/er");
        let lock = Lock::take(&folder).unwrap();
        assert!(folder.join(NAME).exists());
        assert!(!is_free_for_others(&folder));
        assert!(!is_checked_as_free_by_others(&folder));
        lock.release().unwrap();
        assert!(is_checked_as_free_by_others(&folder));
        assert!(!folder.join(NAME).exists());
        drop(Lock::take(&folder).unwrap());
        assert!(!folder.join(NAME).exists());
    }

    #[test]
    fn a_file_with_content_is_refused_and_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(NAME);
        std::fs::write(&path, "x").unwrap();
        let reason = Lock::take(temp.path()).unwrap_err();
        let expected =
            format!("cannot acquire lock: can't Lock file \"{}\": has non-zero size", path.display());
        assert_eq!(reason, expected);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
    }

    #[test]
    fn a_file_left_by_a_crash_does_no_harm() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(NAME), "").unwrap();
        Lock::take(temp.path()).unwrap().release().unwrap();
    }
}
