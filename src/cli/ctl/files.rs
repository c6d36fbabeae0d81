//! What `ctl add` sends: files, folders and links of this machine, its standard input, and URLs.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cluster_compat::api::{self, Entry, EntryKind, Upload};
use futures::StreamExt;
use futures::stream::BoxStream;
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The argument that means standard input where no file is called so and something is to be read.
const STDIN: &str = "-";

/// The name of standard input that was given none.
const STDIN_NAME: &str = "stdin";

/// Bytes read from a file at once.
const READ_BYTES: usize = 256 * 1024;

/// How arguments are read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// Folders are taken with what they hold.
    pub(super) recursive: bool,
    /// Names with a leading dot inside folders are taken too.
    pub(super) hidden: bool,
    /// Only URLs are taken.
    pub(super) no_copy: bool,
}

/// Standard input, if an argument asks for it.
pub(super) struct Stdin {
    /// What it is called in the upload; with a name it is taken even if it is empty.
    pub(super) name: Option<String>,
    /// Where it is read from.
    pub(super) reader: Box<dyn AsyncBufRead + Send + Unpin>,
}

/// Files on their way.
pub(super) struct Files {
    rules: Rules,
    /// What is still to send, last one first.
    todo: Vec<Source>,
    stdin: Stdin,
    current: Content,
    progress: Option<ProgressBar>,
}

/// Something to send, and its path in the upload.
enum Source {
    Local { path: PathBuf, name: Vec<u8> },
    Web { url: String, name: Vec<u8> },
    Stdin { name: Vec<u8> },
}

/// The content of the current entry.
enum Content {
    None,
    File { file: File, path: PathBuf },
    Stdin,
    Web { url: String },
    Body { url: String, body: BoxStream<'static, reqwest::Result<Bytes>> },
}

impl Files {
    /// Looks at the arguments; the error is the reference's, before anything is sent.
    pub(super) async fn new(arguments: &[OsString], rules: Rules, mut stdin: Stdin) -> Result<Self, String> {
        let mut todo = Vec::with_capacity(arguments.len());
        for argument in arguments {
            todo.push(match argument.to_str() {
                Some(url) if has_http_scheme(url) => {
                    Source::Web { url: url.to_owned(), name: url_base(url).into_bytes() }
                }
                _ if rules.no_copy => return Err("nocopy option is only valid for URLs".into()),
                Some(STDIN) if stdin.is_meant().await => {
                    if todo.iter().any(|source| matches!(source, Source::Stdin { .. })) {
                        return Err("standard input can be added once".into());
                    }
                    let name = stdin.name.as_deref().unwrap_or(STDIN_NAME);
                    Source::Stdin { name: name.as_bytes().to_vec() }
                }
                _ => local(argument, rules)?,
            });
        }
        todo.reverse();
        Ok(Self { rules, todo, stdin, current: Content::None, progress: None })
    }

    /// Shows bytes on a bar as they are read.
    pub(super) fn with_progress(mut self, bar: ProgressBar) -> Self {
        self.progress = Some(bar);
        self
    }

    /// Opens an entry of this machine; what a folder holds is next.
    async fn open(&mut self, path: PathBuf, name: Vec<u8>) -> api::Result<Entry> {
        let about = about(&path).map_err(api::Error::internal)?;
        let kind = if about.is_symlink() {
            let target = std::fs::read_link(&path).map_err(|error| failed("readlink", &path, &error))?;
            EntryKind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if about.is_dir() {
            let mut names = list(&path, self.rules.hidden).map_err(|error| failed("open", &path, &error))?;
            names.sort_by(|a, b| b.cmp(a));
            self.todo.extend(names.into_iter().map(|entry| {
                let name = [&name[..], b"/", entry.as_bytes()].concat();
                Source::Local { path: path.join(entry), name }
            }));
            EntryKind::Directory
        } else {
            let file = File::open(&path).await.map_err(|error| failed("open", &path, &error))?;
            self.current = Content::File { file, path };
            EntryKind::File
        };
        Ok(Entry { path: name, kind, abspath: None })
    }
}

impl Stdin {
    /// Whether [`STDIN`] is no file, and there is something to read.
    async fn is_meant(&mut self) -> bool {
        std::fs::symlink_metadata(STDIN).is_err()
            && (self.name.is_some() || self.reader.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()))
    }
}

#[async_trait]
impl Upload for Files {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        self.current = Content::None;
        match self.todo.pop() {
            None => Ok(None),
            Some(Source::Local { path, name }) => self.open(path, name).await.map(Some),
            Some(Source::Web { url, name }) => {
                self.current = Content::Web { url: url.clone() };
                Ok(Some(Entry { path: name, kind: EntryKind::File, abspath: Some(url) }))
            }
            Some(Source::Stdin { name }) => {
                self.current = Content::Stdin;
                Ok(Some(Entry { path: name, kind: EntryKind::File, abspath: None }))
            }
        }
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        if let Content::Web { url } = &self.current {
            let url = url.clone();
            let body = fetch(&url).await.map_err(api::Error::internal)?;
            self.current = Content::Body { url, body };
        }
        let piece = match &mut self.current {
            Content::None | Content::Web { .. } => None,
            Content::File { file, path } => {
                let mut piece = BytesMut::with_capacity(READ_BYTES);
                let n = file.read_buf(&mut piece).await.map_err(|error| failed("read", path, &error))?;
                (n > 0).then(|| piece.freeze())
            }
            Content::Stdin => {
                let mut piece = BytesMut::with_capacity(READ_BYTES);
                let n = self.stdin.reader.read_buf(&mut piece).await;
                let n = n.map_err(|error| failed("read", Path::new("/dev/stdin"), &error))?;
                (n > 0).then(|| piece.freeze())
            }
            Content::Body { url, body } => {
                body.next().await.transpose().map_err(|error| api::Error::internal(web_error(url, &error)))?
            }
        };
        if let (Some(bar), Some(piece)) = (&self.progress, &piece) {
            bar.inc(piece.len() as u64);
        }
        Ok(piece)
    }
}

/// A local argument.
fn local(argument: &OsStr, rules: Rules) -> Result<Source, String> {
    let path = if argument == "." {
        std::env::current_dir()
            .and_then(std::fs::canonicalize)
            .map_err(|error| format!("getwd: {}", words(&error)))?
    } else {
        clean(Path::new(argument))
    };
    if about(&path)?.is_dir() && !rules.recursive {
        return Err(format!("{} is a directory, but Recursive option is not set", path.display()));
    }
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) => name.as_bytes().to_vec(),
        Some(other) => other.as_os_str().as_bytes().to_vec(),
        None => b".".to_vec(),
    };
    Ok(Source::Local { path, name })
}

/// What a path is; only files, folders and links can be sent.
fn about(path: &Path) -> Result<Metadata, String> {
    let about = std::fs::symlink_metadata(path)
        .map_err(|error| format!("lstat {}: {}", path.display(), words(&error)))?;
    let kind = about.file_type();
    if kind.is_file() || kind.is_dir() || kind.is_symlink() {
        Ok(about)
    } else {
        Err(format!("unrecognized file type for {}: {kind:?}", path.display()))
    }
}

/// Names in a folder.
fn list(folder: &Path, hidden: bool) -> io::Result<Vec<OsString>> {
    let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let is_wanted = |name: &OsString| hidden || !name.as_bytes().starts_with(b".");
    names.filter(|name| name.as_ref().map_or(true, is_wanted)).collect()
}

/// Go's `filepath.Clean`.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() { PathBuf::from(".") } else { out }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> api::Error {
    api::Error::internal(format!("{what} {}: {}", path.display(), words(error)))
}

/// What the system says, as Go prints it.
fn words(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Whether the reference takes an argument for a URL: a scheme that starts with `http`.
fn has_http_scheme(argument: &str) -> bool {
    argument.split_once(':').is_some_and(|(scheme, _)| {
        scheme.to_ascii_lowercase().starts_with("http")
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Go's `path.Base` of a URL's path.
fn url_base(url: &str) -> String {
    let after_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match path.trim_end_matches('/').rsplit('/').next() {
        _ if path.is_empty() => ".".into(),
        None | Some("") => "/".into(),
        Some(name) => percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned(),
    }
}

/// The body of a URL.
async fn fetch(url: &str) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, String> {
    let answer = reqwest::get(url).await.map_err(|error| web_error(url, &error))?;
    if !answer.status().is_success() {
        return Err(format!("got non-2XX status code {}: {url}", answer.status().as_u16()));
    }
    Ok(answer.bytes_stream().boxed())
}

/// Why a URL could not be read, in Go's shape; what TLS and HTTP say is in the words of our libraries.
fn web_error(url: &str, error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(found) = cause.source() {
        cause = found;
        let Some(io) = found.downcast_ref::<io::Error>() else { continue };
        // an error of TLS travels inside one of the connection
        if io.get_ref().is_some() {
            continue;
        }
        let parsed = reqwest::Url::parse(url).ok();
        let host = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
        return match host {
            Some((host, port)) if error.is_connect() => {
                format!("Get \"{url}\": dial tcp {host}:{port}: connect: {}", words(io))
            }
            _ => format!("Get \"{url}\": {}", words(io)),
        };
    }
    format!("Get \"{url}\": {cause}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn stdin(name: Option<&str>, content: &'static str) -> Stdin {
        Stdin { name: name.map(Into::into), reader: Box::new(content.as_bytes()) }
    }

    async fn sent(arguments: &[PathBuf], rules: Rules) -> Vec<String> {
        let arguments: Vec<OsString> = arguments.iter().map(|path| path.clone().into_os_string()).collect();
        read(Files::new(&arguments, rules, stdin(None, "")).await.unwrap()).await
    }

    async fn read(mut files: Files) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(entry) = files.next_entry().await.unwrap() {
            let mut content = Vec::new();
            while let Some(piece) = files.read().await.unwrap() {
                content.extend_from_slice(&piece);
            }
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            seen.push(match entry.kind {
                EntryKind::File => format!("{path}={}", String::from_utf8_lossy(&content)),
                EntryKind::Directory => format!("{path}/"),
                EntryKind::Symlink(to) => format!("{path}->{}", String::from_utf8_lossy(&to)),
            });
        }
        seen
    }

    #[tokio::test]
    async fn folders_are_sent_parents_first_in_name_order() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("d");
        std::fs::create_dir_all(top.join("sub")).unwrap();
        std::fs::write(top.join("sub/b"), "bee").unwrap();
        std::fs::write(top.join("a"), "").unwrap();
        std::fs::write(top.join(".hidden"), "h").unwrap();
        symlink("a", top.join("l")).unwrap();
        let rules = Rules { recursive: true, ..Rules::default() };
        let expected = ["d/", "d/a=", "d/l->a", "d/sub/", "d/sub/b=bee"];
        assert_eq!(sent(&[top.join("sub/..")], rules).await, expected);
        let all = sent(std::slice::from_ref(&top), Rules { hidden: true, ..rules }).await;
        assert_eq!(all[1], "d/.hidden=h");
        // A hidden file that is named is sent, and so is a link.
        assert_eq!(sent(&[top.join(".hidden"), top.join("l")], rules).await, [".hidden=h", "l->a"]);
    }

    #[tokio::test]
    async fn arguments_are_looked_at_before_anything_is_sent() {
        let root = tempfile::tempdir().unwrap();
        let text = async |argument: &str, rules| {
            Files::new(&[argument.into()], rules, stdin(None, "")).await.err().unwrap()
        };
        assert_eq!(text("nothere", Rules::default()).await, "lstat nothere: no such file or directory");
        assert_eq!(text("-", Rules::default()).await, "lstat -: no such file or directory");
        let folder = root.path().to_str().unwrap();
        let expected = format!("{folder} is a directory, but Recursive option is not set");
        assert_eq!(text(&format!("{folder}/"), Rules::default()).await, expected);
        let rules = Rules { no_copy: true, ..Rules::default() };
        assert_eq!(text(folder, rules).await, "nocopy option is only valid for URLs");
    }

    #[tokio::test]
    async fn standard_input_is_a_file_like_any_other() {
        let new = async |name, content, arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            Files::new(&arguments, Rules::default(), stdin(name, content)).await
        };
        assert_eq!(read(new(None, "some text", &["-"]).await.unwrap()).await, ["stdin=some text"]);
        assert_eq!(read(new(Some("n"), "x", &["-"]).await.unwrap()).await, ["n=x"]);
        assert_eq!(read(new(Some("n"), "", &["-"]).await.unwrap()).await, ["n="]);
        let twice = new(None, "x", &["-", "-"]).await.err();
        assert_eq!(twice.as_deref(), Some("standard input can be added once"));
    }

    #[test]
    fn urls_are_named_after_their_last_element() {
        for (url, name) in
            [("http://x/a/b%20c?q=/z", "b c"), ("http://x:80/a/", "a"), ("http://x/", "/"), ("http://x", ".")]
        {
            assert_eq!(url_base(url), name, "{url}");
        }
        assert!(has_http_scheme("https://x") && !has_http_scheme("./http:x") && !has_http_scheme("httpx"));
    }
}
