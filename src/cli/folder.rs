//! Folders that are named on command lines.

use std::path::{Component, Path, PathBuf};

/// The folder `name` in the user's home, for where there is no flag and no variable.
pub(super) fn home(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    home.or_else(std::env::home_dir).unwrap_or_default().join(name)
}

/// `text` as an absolute path without `.` and `..`; the working directory if it is empty.
pub(super) fn absolute(text: &str) -> std::io::Result<PathBuf> {
    Ok(clean(&std::env::current_dir()?.join(text)))
}

/// A path without `.` and `..`, as its text says it.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_become_absolute_without_dots() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("").unwrap(), here);
        assert_eq!(absolute("a/./b/../c").unwrap(), here.join("a/c"));
        assert_eq!(absolute("/x/../../y/").unwrap(), Path::new("/y"));
    }
}
