//! Levels, lines and outputs.

use std::sync::Mutex;

use super::*;

fn service(text: &str) -> Result<(Levels, Vec<String>), Error> {
    let mut levels = Levels::from_env("", &mut Vec::new());
    let notes = levels.apply(Program::Service, text, false)?;
    Ok((levels, notes))
}

#[test]
fn a_bare_level_moves_the_clusters_facilities_alone() {
    let (levels, notes) = service("debug,crdt:warn").unwrap();
    assert!(notes.is_empty());
    assert_eq!(levels.facilities["cluster"], LevelFilter::DEBUG);
    assert_eq!(levels.facilities["service"], LevelFilter::DEBUG);
    assert_eq!(levels.facilities["crdt"], LevelFilter::WARN);
    assert_eq!(levels.facilities["swarm2"], LevelFilter::ERROR);
    assert_eq!(levels.default, LevelFilter::ERROR);
}

#[test]
fn odd_level_lists_are_answered_as_the_reference_does() {
    assert!(matches!(service("a:b:c"), Err(Error::LevelFormat)));
    let (levels, notes) = service("crdt:debug,crdt:FATAL,monitor:critical").unwrap();
    assert_eq!(notes, ["overwriting existing crdt log level"]);
    assert_eq!(levels.facilities["crdt"], LevelFilter::OFF);
    assert_eq!(levels.facilities.get("monitor"), None);
    assert_eq!(levels.facilities["cluster"], LevelFilter::INFO);
}

#[test]
fn the_environment_sets_what_the_program_does_not() {
    let mut complaints = Vec::new();
    let mut levels = Levels::from_env("warn,pubsub=debug,x=loud", &mut complaints);
    levels.apply(Program::Service, "", false).unwrap();
    assert_eq!(levels.default, LevelFilter::WARN);
    assert_eq!(levels.facilities["pubsub"], LevelFilter::DEBUG);
    assert_eq!(complaints, ["error setting log level \"x=loud\": unrecognized level: \"loud\""]);
    assert_eq!(Filter::<Registry>::max_level_hint(&levels), Some(LevelFilter::DEBUG));
}

#[test]
fn module_paths_count_for_the_facility_of_their_part() {
    assert_eq!(facility("pintracker"), "pintracker");
    assert_eq!(facility("libp2p_gossipsub::behaviour"), "pubsub");
    assert_eq!(facility("ipfs_cluster::net"), "cluster");
    assert_eq!(facility("hyper::proto"), "hyper");
}

#[test]
fn times_are_iso_8601_with_milliseconds() {
    let time = Time::from_unix(1_778_494_830, 123_456_789);
    assert_eq!(iso8601(time), "2026-05-11T10:20:30.123Z");
    assert_eq!(iso8601(time.with_offset(7200)), "2026-05-11T12:20:30.123+0200");
    assert_eq!(iso8601(time.with_offset(-12_600)), "2026-05-11T06:50:30.123-0330");
    assert_eq!(iso8601(Time::from_unix(951_782_400, 0)), "2000-02-29T00:00:00.000Z");
}

/// Keeps lines for a test.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for &Kept {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn printed(format: Format, labels: Vec<(String, String)>) -> String {
    let kept = Kept::default();
    let (levels, _) = service("").unwrap();
    let layer = tracing_subscriber::fmt::layer()
        .fmt_fields(DefaultFields::new())
        .event_format(Lines { format, labels })
        .with_writer(kept.clone())
        .with_filter(levels);
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        tracing::info!(target: "cluster", "IPFS Cluster is ready");
        tracing::debug!(target: "cluster", "not shown");
        tracing::warn!(target: "pintracker", attempt = 2, share = 0.5, none = f64::NAN, cid = "Qm\"", "a\x1b[2Jb");
    });
    let bytes = kept.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    // times and lines of this file differ from run to run
    text.lines()
        .map(|line| {
            let line = match format {
                Format::Json => line.replacen(
                    &line[line.find("\"ts\":").unwrap()..line.find(",\"logger").unwrap()],
                    "TS",
                    1,
                ),
                _ => line.split_once('\t').unwrap().1.to_owned(),
            };
            let at = line.find("log/tests.rs:").unwrap() + "log/tests.rs:".len();
            let digits = line[at..].chars().take_while(char::is_ascii_digit).count();
            format!("{}L{}\n", &line[..at], &line[at + digits..])
        })
        .collect()
}

#[test]
fn text_has_five_columns_and_fields_behind() {
    assert_eq!(
        printed(Format::Plain, vec![]),
        "INFO\tcluster\tlog/tests.rs:L\tIPFS Cluster is ready\n\
         WARN\tpintracker\tlog/tests.rs:L\ta\\u{1b}[2Jb\t{\"attempt\": 2, \"share\": 0.5, \"none\": \"NaN\", \"cid\": \"Qm\\\"\"}\n"
    );
    assert!(printed(Format::Colour, vec![]).starts_with("\x1b[34mINFO\x1b[0m\tcluster\t"));
}

#[test]
fn json_has_zaps_keys() {
    assert_eq!(
        printed(Format::Json, vec![("dc".into(), "sjc".into())]),
        "{\"level\":\"info\",TS,\"logger\":\"cluster\",\"caller\":\"log/tests.rs:L\",\"msg\":\"IPFS Cluster is ready\",\"dc\":\"sjc\"}\n\
         {\"level\":\"warn\",TS,\"logger\":\"pintracker\",\"caller\":\"log/tests.rs:L\",\"msg\":\"a\\u001b[2Jb\",\"dc\":\"sjc\",\"attempt\":2,\"share\":0.5,\"none\":\"NaN\",\"cid\":\"Qm\\\"\"}\n"
    );
}

#[test]
fn a_log_file_takes_the_place_of_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log").to_string_lossy().into_owned();
    let env = |name: &str| (name == "GOLOG_FILE").then(|| path.clone());
    let output = Output::from_env(&env, &mut Vec::new()).unwrap();
    assert!(!output.is_stderr && !output.is_stdout);
    (&output).write_all(b"line\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"line\n");
    let missing = |name: &str| (name == "GOLOG_FILE").then(|| format!("{path}/no"));
    let error = Output::from_env(&missing, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("unable to open logging output: {path}/no: ")), "{error}");
}
