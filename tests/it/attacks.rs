//! Multipart bodies that are cut, corrupt or made to hurt.

use crate::raw::Body;

/// What comes of an attack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// A refusal or a late error that contains a text.
    Refused(&'static str),
    /// As [`Expect::Refused`], or no answer at all: what is sent is no request.
    Broken,
    /// All is well, and the answer contains a text.
    Accepted(&'static str),
}

use Expect::{Accepted, Broken, Refused};

/// One body.
pub(crate) struct Attack {
    pub(crate) name: String,
    /// Of the query.
    pub(crate) options: &'static str,
    pub(crate) kind: String,
    pub(crate) body: Body,
    pub(crate) expect: Expect,
}

/// Content type of forms whose boundary is `b`.
const FORM: &str = "multipart/form-data; boundary=b";

fn attack(name: impl Into<String>, body: Body, expect: Expect) -> Attack {
    Attack { name: name.into(), options: "", kind: FORM.into(), body, expect }
}

/// A part with a head of its own.
pub(crate) fn part(head: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    [b"--b\r\n", head.as_bytes(), b"\r\n\r\n", content.as_ref(), b"\r\n"].concat()
}

/// The head of a file.
pub(crate) fn named(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"")
}

fn file(name: &str, content: &str) -> Vec<u8> {
    part(&named(name), content)
}

fn typed(name: &str, kind: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    part(&format!("{}\r\nContent-Type: {kind}", named(name)), content)
}

/// A whole form.
pub(crate) fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], b"--b--\r\n"].concat()
}

fn whole(parts: &[Vec<u8>]) -> Body {
    Body::Whole(form(parts))
}

/// Boundaries, and what separates parts.
fn boundaries() -> Vec<Attack> {
    let other = |name: &str, kind: &str, expect| Attack {
        kind: kind.into(),
        ..attack(name, whole(&[file("a", "x")]), expect)
    };
    let long = "0123456789".repeat(1000);
    let dashes = "-".repeat(2000);
    let with = |boundary: &str, content: &str| {
        format!("--{boundary}\r\n{}\r\n\r\n{content}\r\n--{boundary}--\r\n", named("a")).into_bytes()
    };
    let plain = |name: &str, body: &str, expect| attack(name, Body::Whole(body.as_bytes().to_vec()), expect);
    vec![
        other("no content type", "", Refused("isn't multipart/form-data")),
        other("another content type", "text/plain", Refused("isn't multipart/form-data")),
        other("a content type that is none", "multipart/form-data; boundary", Refused("multipart")),
        other("no boundary", "multipart/form-data", Refused("no multipart boundary param")),
        other("an empty boundary", "multipart/form-data; boundary=\"\"", Refused("multipart")),
        other("another boundary", "multipart/form-data; boundary=c", Refused("multipart: NextPart: EOF")),
        other("two boundaries", "multipart/form-data; boundary=b; boundary=b", Refused("isn't multipart")),
        Attack {
            kind: format!("multipart/form-data; boundary={long}"),
            ..attack("a boundary of 10,000 bytes", Body::Whole(with(&long, "x")), Refused("Too Large"))
        },
        Attack {
            kind: format!("multipart/form-data; boundary={dashes}"),
            ..attack(
                "a boundary of dashes, and data of them",
                Body::Chunks(with(&dashes, &"-".repeat(400_000)), 1000),
                Refused("buffer full"),
            )
        },
        attack("a boundary in the data", whole(&[file("a", "x\r\n--bx\r\n--\r\n--bb--")]), Accepted("\"a\"")),
        attack("an end in the data", whole(&[file("a", "x\r\n--b--\r\ny")]), Accepted("\"a\"")),
        plain("an empty body", "", Refused("NextPart: EOF")),
        plain("an end alone", "--b--\r\n", Refused("no file parts")),
        plain("a beginning alone", "--b\r\n", Refused("first part")),
        plain("words before an end", "hello\r\n--b--\r\n", Refused("no file parts")),
        plain("words alone", "hello", Refused("NextPart: EOF")),
        plain(
            "carriage returns alone",
            "--b\rContent-Disposition: form-data; filename=\"a\"\r\rx\r--b--\r",
            Refused("multipart"),
        ),
        plain(
            "line feeds alone",
            "--b\nContent-Disposition: form-data; filename=\"a\"\n\nx\n--b--\n",
            Accepted("\"a\""),
        ),
        plain("a boundary with more", "--bcd\r\n\r\n--b--", Refused("no file parts")),
        attack(
            "a megabyte before the first boundary",
            Body::Whole(vec![b'x'; 1 << 20]),
            Refused("buffer full"),
        ),
        attack(
            "a megabyte of lines before the first boundary",
            Body::Whole(b"x\r\n".repeat(350_000)),
            Refused("NextPart: EOF"),
        ),
        attack(
            "a megabyte of blanks behind a boundary",
            Body::Whole([&b"--b"[..], &[b' '; 1 << 20], b"\r\n"].concat()),
            Refused("buffer full"),
        ),
        attack(
            "a line between parts",
            Body::Whole([&file("a", "x")[..], b"\r\nhello\r\n--b--\r\n"].concat()),
            Accepted("\"a\""),
        ),
        attack(
            "a body in single bytes",
            Body::Chunks(form(&[file("a", "x"), file("b", "y")]), 1),
            Accepted("\"b\""),
        ),
    ]
}

/// Heads of parts.
fn heads() -> Vec<Attack> {
    let head = |name: &str, head: &str, expect| attack(name, whole(&[part(head, "x")]), expect);
    let a = named("a");
    let many_params: String = (0..20_000).map(|n| format!("; p{n}=v")).collect();
    vec![
        head("no head", "", Refused("Content-Disposition")),
        head("a head without a colon", &format!("{a}\r\nhello"), Refused("missing colon")),
        head("a line of a megabyte", &format!("{a}\r\nX: {}", "x".repeat(1 << 20)), Refused("buffer full")),
        head(
            "a megabyte of lines",
            &format!("{a}{}", "\r\nX: y".repeat(200_000)),
            Refused("message too large"),
        ),
        head("5,000 lines", &format!("{a}{}", "\r\nA: b".repeat(5000)), Accepted("\"a\"")),
        head("no disposition", "Content-Type: text/plain", Refused("Content-Disposition")),
        head("an open quote", "Content-Disposition: form-data; filename=\"a", Refused("Content-Disposition")),
        head("a disposition of nothing", "Content-Disposition: ;;;", Refused("Content-Disposition")),
        head("two names", &format!("{a}; filename=\"b\""), Refused("duplicate parameter")),
        head("20,000 parameters", &format!("{a}{many_params}"), Accepted("\"a\"")),
        head("an extended name", "Content-Disposition: form-data; filename*=x''%zz", Accepted("ize\"")),
        head("two dispositions", &format!("{a}\r\n{}", named("b")), Accepted("\"a\"")),
        head("no name", "Content-Disposition: form-data; name=\"file\"", Accepted("ize\"")),
        head("a NUL in the head", &format!("X: \0\r\n{a}"), Accepted("\"a\"")),
        head("a kind that is none", &format!("{a}\r\nContent-Type: a/b/c"), Refused("mime")),
        head(
            "a kind with two boundaries",
            &format!("{a}\r\nContent-Type: x/y; a=1; a=2"),
            Refused("duplicate parameter"),
        ),
        head(
            "a bad escape in a path",
            &format!("{a}\r\nAbspath-Encoded: %zz"),
            Refused("invalid URL escape"),
        ),
        head(
            "half an escape in a path",
            &format!("{a}\r\nAbspath-Encoded: a%2"),
            Refused("invalid URL escape"),
        ),
        Attack {
            options: "&nocopy=true",
            ..head("no path to refer to", &a, Refused("missing file path or URL"))
        },
    ]
}

/// Names, and trees made of them.
fn names() -> Vec<Attack> {
    let one = |what: &str, name: &str, expect| attack(what, whole(&[file(name, "x")]), expect);
    let deep = |n: usize| vec!["d"; n].join("%2F");
    let tree = |name: &str, parts: &[Vec<u8>], expect| Attack {
        options: "&wrap-with-directory=true",
        ..attack(name, whole(parts), expect)
    };
    // each level of a path is a directory with a name that is long, too
    let long_and_deep = vec!["n".repeat(200); 1000].join("/");
    vec![
        one("a bad escape", "100%zz", Accepted("100%zz")),
        one("half an escape", "100%", Accepted("100%")),
        one("a NUL", "a%00b", Accepted("a\\u0000b")),
        one("bytes that are no text", "%ff%fe", Accepted("\u{fffd}\u{fffd}")),
        one("a way out", "..%2F..%2F..%2Fetc%2Fpasswd", Accepted("\"etc/passwd\"")),
        one("a way out by backslashes", "..%5C..%5Ca", Accepted("\"..\\\\..\\\\a\"")),
        one("the root", "%2F", Accepted("ize\"")),
        one("dots", "..", Accepted("ize\"")),
        one("slashes", "%2F%2F%2Fa%2F%2F%2Fb%2F%2F", Accepted("\"a/b\"")),
        one("a name of 64 KiB", &"n".repeat(64 << 10), Accepted("nnnn")),
        one("a name of 300 KiB", &"n".repeat(300 << 10), Refused("buffer full")),
        one("1,025 directories", &deep(1026), Refused("path has more than 1024 components: d/d/d/d")),
        one("1,023 directories", &deep(1024), Accepted("d/d/d")),
        one("long names, a thousand deep", &long_and_deep, Accepted("nnnn")),
        one("dots without number", &vec!["."; 80_000].join("/"), Accepted("ize\"")),
        tree(
            "a file over a directory",
            &[file("d%2Fa", "x"), file("d", "y")],
            Refused("already has entry by that name"),
        ),
        tree(
            "a directory over a file",
            &[file("p", "x"), file("q", "y"), file("p%2Fa", "z")],
            Refused("file already exists: p"),
        ),
        tree(
            "an announced directory over a file",
            &[file("p", "x"), typed("p", "application/x-directory", "")],
            Refused("file already exists: p"),
        ),
        tree("the same name twice", &[file("p", "x"), file("p", "y")], Accepted("\"p\"")),
        tree("a file below a file", &[file("p", "x"), file("p%2Fq", "y")], Accepted("\"p\"")),
        attack(
            "a link of 64 KiB and a byte",
            whole(&[typed("a", "application/symlink", vec![b'x'; (64 << 10) + 1])]),
            Refused("target of link a is too long"),
        ),
        attack(
            "a link of 100 MiB",
            Body::Repeated {
                start: [
                    &b"--b\r\n"[..],
                    named("a").as_bytes(),
                    b"\r\nContent-Type: application/symlink\r\n\r\n",
                ]
                .concat(),
                piece: |_| vec![b'x'; 1 << 20],
                times: 100,
                end: b"\r\n--b--\r\n".to_vec(),
            },
            Refused("target of link a is too long"),
        ),
        attack("a link to nothing", whole(&[typed("a", "application/symlink", "")]), Accepted("\"a\"")),
        attack(
            "a link to bytes",
            whole(&[typed("a", "application/symlink", b"\0\xff\r\n")]),
            Accepted("\"a\""),
        ),
        attack(
            "a directory with content",
            whole(&[typed("a", "application/x-directory", "x")]),
            Accepted("\"a\""),
        ),
        attack(
            "a form in a form",
            whole(&[typed("a", "multipart/form-data; boundary=c", "--c\r\n")]),
            Accepted("\"a\""),
        ),
        attack(
            "empty parts without number",
            Body::Repeated {
                start: Vec::new(),
                piece: |n| file(&format!("p{n}"), ""),
                times: std::env::var("ADD_PARTS").map_or(5000, |n| n.parse().unwrap()),
                end: b"--b--\r\n".to_vec(),
            },
            Accepted("\"p4999\""),
        ),
        attack(
            "paths of a thousand directories without number",
            Body::Repeated {
                start: Vec::new(),
                piece: |n| file(&format!("{n}%2F{}", ["d"; 1000].join("%2F")), "x"),
                times: 5,
                end: b"--b--\r\n".to_vec(),
            },
            Accepted("\"4\""),
        ),
    ]
}

/// How long a body is, and what it says of that.
fn frames() -> Vec<Attack> {
    let good = || form(&[file("a", "some content")]);
    let framed = |name: &str, lines: &'static str, bytes: Vec<u8>, expect| {
        attack(name, Body::Framed { lines, bytes }, expect)
    };
    let chunks = |pieces: &[&[u8]]| pieces.concat();
    let length = good().len();
    vec![
        framed("a length that never comes", "Content-Length: 100000\r\n", good(), Accepted("\"a\"")),
        framed(
            "a length that never comes, of nothing",
            "Content-Length: 100000\r\n",
            b"--b\r\n".to_vec(),
            Refused("EOF"),
        ),
        framed("a length that cuts", "Content-Length: 70\r\n", good(), Refused("multipart")),
        framed("no length", "", good(), Refused("")),
        framed("a negative length", "Content-Length: -5\r\n", good(), Broken),
        framed("a length that is no number", "Content-Length: x\r\n", good(), Broken),
        framed("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", good(), Broken),
        framed("a length beyond all numbers", "Content-Length: 99999999999999999999999\r\n", good(), Broken),
        framed(
            "a length and chunks",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            good(),
            Refused(""),
        ),
        framed("chunks that are none", "Transfer-Encoding: chunked\r\n", good(), Refused("")),
        framed(
            "a chunk of no size",
            "Transfer-Encoding: chunked\r\n",
            b"zz\r\nhello\r\n0\r\n\r\n".to_vec(),
            Refused(""),
        ),
        framed(
            "a chunk beyond all sizes",
            "Transfer-Encoding: chunked\r\n",
            b"ffffffffffffffffff\r\nhello".to_vec(),
            Refused(""),
        ),
        framed(
            "a chunk of 2^63 bytes",
            "Transfer-Encoding: chunked\r\n",
            b"8000000000000000\r\nhello".to_vec(),
            Refused(""),
        ),
        framed(
            "a chunk without its end",
            "Transfer-Encoding: chunked\r\n",
            chunks(&[b"5\r\n--b\r\nxx", &good()]),
            Refused(""),
        ),
        framed(
            "chunks without an end",
            "Transfer-Encoding: chunked\r\n",
            chunks(&[format!("{:x}\r\n", length - 10).as_bytes(), &good()[..length - 10], b"\r\n"]),
            Refused("EOF"),
        ),
        framed(
            "a chunk with a megabyte of extensions",
            "Transfer-Encoding: chunked\r\n",
            chunks(&[b"5;", &[b'x'; 1 << 20], b"\r\n--b\r\n\r\n0\r\n\r\n"]),
            Refused(""),
        ),
        framed(
            "a megabyte of trailers",
            "Transfer-Encoding: chunked\r\n",
            chunks(&[b"5\r\n--b\r\n\r\n0\r\n", &b"X: y\r\n".repeat(200_000), b"\r\n"]),
            Refused(""),
        ),
        framed(
            "packed content",
            "Content-Encoding: gzip\r\nContent-Length: 5\r\n",
            b"\x1f\x8b\x08\0\0".to_vec(),
            Refused("EOF"),
        ),
    ]
}

/// Parameters that do not fit the body, or anything.
fn options() -> Vec<Attack> {
    let option = |options: &'static str, expect| Attack {
        options,
        ..attack(format!("option {options}"), whole(&[file("a", &"x".repeat(200))]), expect)
    };
    vec![
        option("&chunker=size-0", Refused("chunker size must be greater than 0")),
        option("&chunker=size-2096897", Refused("may not exceed the maximum chunk size")),
        option("&chunker=size-99999999999999999999", Refused("99999999999999999999")),
        option("&chunker=rabin-1-2-3", Refused("rabin min must be greater than 16")),
        option("&chunker=rabin-17-99999999999-3", Refused("rabin")),
        option("&chunker=nope", Refused("unrecognized chunker option: nope")),
        option("&hash=nope", Refused("hash function name not known")),
        option("&hash=x11", Refused("4352 (0x1100)")),
        option("&hash=identity&raw-leaves=true", Refused("identity")),
        option("&cid-version=9", Refused("unknown CID version: 9")),
        option("&cid-version=99999999999999999999", Refused("cid-version")),
        option("&format=zip", Refused("format parameter is invalid")),
        option("&layout=zip", Refused("layout parameter is invalid")),
        option("&progress=maybe", Refused("parameter progress invalid")),
        option("&replication-min=5&replication-max=2", Refused("")),
        option("&shard=true&shard-size=1", Refused("shard size too small")),
        option("&user-allocations=nobody", Accepted("\"a\"")),
    ]
}

/// A good form of several parts, cut at many places.
fn cuts() -> Vec<Attack> {
    let whole = form(&[
        file("a", "some content"),
        typed("d", "application/x-directory", ""),
        file("d%2Fb", "more of it"),
        typed("d%2Fl", "application/symlink", "target"),
    ]);
    let end = whole.len() - "--b--\r\n".len();
    (0..20)
        .map(|n| end * n / 20)
        .chain([end - 1, end, end + 1, end + 4])
        .map(|at| {
            attack(format!("cut after {at} bytes"), Body::Whole(whole[..at].to_vec()), Refused("multipart"))
        })
        .collect()
}

pub(crate) fn all() -> Vec<Attack> {
    [boundaries(), heads(), names(), frames(), options(), cuts()].into_iter().flatten().collect()
}
