//! Which entry of a flat upload stands where in a tree.
//!
//! Parts come one after the other, each with a path from the root; directories may be announced, or implied by
//! what lies below them, and end when a part lies outside. The rules are those of Go's reader of multipart
//! bodies (spec: adder 5.2), which Kubo shares.

use super::{Error, MAX_DEPTH};

/// The directories that are open, outermost first.
#[derive(Debug, Default)]
pub(super) struct Walk {
    open: Vec<Frame>,
    /// The path of the innermost one; those of the others are beginnings of it.
    path: Vec<Vec<u8>>,
    /// Name of the last entry of the root.
    last_at_root: Option<Vec<u8>>,
}

/// One open directory.
#[derive(Debug)]
struct Frame {
    /// Its name in the directory above; empty if its own path was the root's.
    name: Vec<u8>,
    /// How many components of a path lead to it. Less than the number of frames if one is unnamed.
    depth: usize,
    /// Name of its last entry.
    last: Option<Vec<u8>>,
}

/// What to do about a part. All but [`Step::Take`] and [`Step::Skip`] mean: do it, then ask again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The innermost directory is complete.
    Leave,
    /// A directory without a part of its own begins; its name is the last of [`Walk::names`].
    Enter,
    /// The part is the entry of this name in the innermost directory.
    Take(Vec<u8>),
    /// The part lies below an entry that was a file.
    Skip,
}

impl Walk {
    /// Names of the open directories, outermost first.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.open.iter().map(|frame| &frame.name[..])
    }

    /// Name of the innermost directory.
    pub(super) fn name(&self) -> &[u8] {
        self.open.last().map_or(b"", |frame| &frame.name)
    }

    /// How many directories are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next step towards the entry at `path` (cleaned components).
    pub(super) fn step(&mut self, path: &[Vec<u8>]) -> Step {
        let (depth, last) = match self.open.last_mut() {
            Some(frame) => {
                if !is_below(path, &self.path) {
                    return Step::Leave;
                }
                (frame.depth, &mut frame.last)
            }
            None => (0, &mut self.last_at_root),
        };
        let rest = &path[depth..];
        let [name, below @ ..] = rest else {
            // The root itself: an entry without a name.
            *last = Some(Vec::new());
            return Step::Take(Vec::new());
        };
        if !below.is_empty() && last.as_ref().is_some_and(|last| !last.is_empty() && last == name) {
            return Step::Skip;
        }
        *last = Some(name.clone());
        if below.is_empty() {
            return Step::Take(name.clone());
        }
        self.path.push(name.clone());
        self.open.push(Frame { name: name.clone(), depth: depth + 1, last: None });
        Step::Enter
    }

    /// The entry just taken is a directory.
    pub(super) fn enter(&mut self, name: Vec<u8>, path: &[Vec<u8>]) {
        self.path.extend_from_slice(&path[self.path.len()..]);
        self.open.push(Frame { name, depth: path.len(), last: None });
    }

    /// Follows [`Step::Leave`], and the end of the upload.
    pub(super) fn leave(&mut self) {
        self.open.pop();
        self.path.truncate(self.open.last().map_or(0, |frame| frame.depth));
    }
}

/// Whether `path` lies below `directory`; everything lies below the root, the root included.
fn is_below(path: &[Vec<u8>], directory: &[Vec<u8>]) -> bool {
    directory.is_empty() || (path.len() > directory.len() && path.starts_with(directory))
}

/// The components of a path, with `.` and `..` resolved and nothing above the root: Go's `path.Clean("/" + path)`.
pub(super) fn clean(path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut components: Vec<Vec<u8>> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => {
                if components.len() == MAX_DEPTH {
                    let start = join(components.iter().take(4).map(Vec::as_slice));
                    return Err(Error::TooDeep(text(&start)));
                }
                components.push(name.to_vec());
            }
        }
    }
    Ok(components)
}

/// Names joined by `/`, unnamed ones left out.
pub(super) fn join<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut path = Vec::new();
    for name in names.filter(|name| !name.is_empty()) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
    }
    path
}

/// Bytes as Go's JSON encoder shows them: each byte that is not UTF-8 is one replacement character.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a list of parts; directories end in `/`.
    #[track_caller]
    fn check(parts: &[&str], expected: &str) {
        let mut walk = Walk::default();
        let mut seen = Vec::new();
        for part in parts {
            let path = clean(part.as_bytes()).unwrap();
            loop {
                match walk.step(&path) {
                    Step::Leave => {
                        walk.leave();
                        seen.push("^".to_string());
                    }
                    Step::Enter => seen.push(format!("+{}", text(&join(walk.names())))),
                    Step::Skip => {
                        seen.push(format!("-{part}"));
                        break;
                    }
                    Step::Take(name) => {
                        let mut names: Vec<_> = walk.names().map(<[u8]>::to_vec).collect();
                        names.push(name.clone());
                        seen.push(text(&join(names.iter().map(Vec::as_slice))));
                        if part.ends_with('/') {
                            walk.enter(name, &path);
                        }
                        break;
                    }
                }
            }
        }
        assert_eq!(seen.join(" "), expected);
    }

    #[test]
    fn directories_may_be_announced_or_implied() {
        check(&["d/", "d/a", "d/e/f"], "d d/a +d/e d/e/f");
        check(&["d/e/f", "d/a", "x"], "+d +d/e d/e/f ^ d/a ^ x");
    }

    #[test]
    fn a_late_announcement_is_an_entry_of_its_own() {
        check(&["d/a", "d/"], "+d d/a ^ d");
    }

    #[test]
    fn parts_below_a_file_are_skipped_while_it_is_the_last_entry() {
        check(&["p", "p/q", "r"], "p -p/q r");
        check(&["d/p", "d/p/q"], "+d d/p -d/p/q");
    }

    #[test]
    fn directories_can_be_entered_again() {
        check(&["d/", "d/a/1", "d/b", "d/a/2"], "d +d/a d/a/1 ^ d/b +d/a d/a/2");
    }

    #[test]
    fn paths_cannot_climb() {
        check(&["../x", "/y/./z", "a//b/../c", ".."], "x +y y/z ^ +a a/c ^ ");
    }

    #[test]
    fn an_unnamed_directory_holds_the_rest() {
        check(&["/", "a", "b/c"], " a +b b/c");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_one_by_one() {
        assert_eq!(text(b"a\xff\xe2\x82z"), "a\u{fffd}\u{fffd}\u{fffd}z");
    }
}
