//! Events, roots, destinations and failures.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_compat::api::{self, ErrorKind};
use cluster_compat::types::{PinMode, PinOptions};
use futures::StreamExt;

use super::super::MAX_QUEUED_BATCHES;
use super::super::collector::{Destination, peer};
use super::{Collector, Item, Memory, add, file, import, lines, params, pinned};
use crate::adder::Error;

const LIMIT: Duration = Duration::from_secs(20);

fn moons() -> Vec<Item> {
    vec![
        Item::Dir("moons"),
        Item::Dir("moons/jupiter"),
        file("moons/jupiter/europa.txt", "Hello Europa!\n"),
        file("moons/mercury.txt", "hey you are no moon!\n"),
        file("moons/saturn/titan.txt", "Hello Titan!\n"),
    ]
}

const MOONS: &str = r#""moons/jupiter/europa.txt" Qmbjg7zWdqdMaK2BucPncJQDxiALExph5k3NkQv5RHpccu 22
"moons/mercury.txt" QmRsTB5CpEUvDUpDgHCzb3VftZ139zrk9zs5ZcgYh9TMPJ 29
"moons/saturn/titan.txt" QmZzppb9WHn552rmRqpPfgU5FEiHH6gDwi3MrB9cTdPwdb 21
"moons/jupiter" QmS5mZddhFPLWFX3w6FzAy9QxyYkaxvUpsWCtZ3r7jub9J 78
"moons/saturn" QmaMagZT4rTE7Nonw8KGSK4oe1bh533yhZrCo1HihSG8FK 76
"moons" QmbGoaQZm8kjYfCiN1aBsgwhqfUBGDYTrDb91Mz7Dvq81B 337
"#;

#[tokio::test]
async fn events_name_files_as_they_come_and_directories_at_the_end() {
    let host = Arc::new(Collector::new());
    let (events, error) = add(params(), Memory::of(&moons()), &host).await;
    assert_eq!((lines(&events).as_str(), error), (MOONS, None));
    assert!(events.iter().all(|event| event.allocations == [peer(1)]));
}

#[tokio::test]
async fn wrapping_adds_one_directory_without_a_name() {
    let host = Arc::new(Collector::new());
    let mut params = params();
    params.wrap_with_directory = true;
    let (events, _) = add(params, Memory::of(&moons()), &host).await;
    let (wrapper, rest) = events.split_last().unwrap();
    assert_eq!(lines(rest), MOONS);
    assert_eq!(wrapper.name, "");
    assert_eq!(pinned(&host), [wrapper.cid.unwrap()]);
}

/// Recorded from 1.1.6, `progress.json`.
#[tokio::test]
async fn progress_counts_bytes_as_the_reference_does() {
    let lens = [
        (0, "size-262144", vec![0]),
        (1, "size-262144", vec![1]),
        (262_143, "size-262144", vec![262_143]),
        (262_144, "size-262144", vec![262_144, 262_144]),
        (262_145, "size-262144", vec![262_144, 262_145]),
        (524_288, "size-262144", vec![262_144, 524_288, 524_288, 524_288]),
        (1_000_000, "size-262144", vec![262_144, 524_288, 786_432, 1_000_000]),
        (400_000, "size-100000", vec![262_144, 400_000, 400_000, 400_000]),
        (300_000, "size-1000", vec![262_144, 300_000, 300_000, 300_000, 300_000]),
    ];
    for (len, chunker, expected) in lens {
        let mut params = params();
        params.progress = true;
        params.chunker = chunker.into();
        let host = Arc::new(Collector::new());
        let (events, _) = add(params, Memory::of(&[file("f", vec![7; len])]), &host).await;
        let (last, counts) = events.split_last().unwrap();
        assert!(last.cid.is_some(), "{len}");
        assert!(counts.iter().all(|event| event.name.is_empty() && event.cid.is_none()), "{len}");
        assert_eq!(counts.iter().map(|event| event.bytes).collect::<Vec<_>>(), expected, "{len}");
    }
}

#[tokio::test]
async fn progress_names_leave_out_the_top_entry_unless_it_is_wrapped() {
    let items = [file("d/sub/b", "b"), file("c", "c")];
    for (wrap, expected) in [(false, ["sub/b", ""]), (true, ["d/sub/b", "c"])] {
        let mut params = params();
        params.progress = true;
        params.wrap_with_directory = wrap;
        let host = Arc::new(Collector::new());
        let (events, _) = add(params, Memory::of(&items), &host).await;
        let names: Vec<_> = events.iter().filter(|e| e.cid.is_none()).map(|e| e.name.as_str()).collect();
        assert_eq!(names, expected);
    }
}

/// Ruling A4; the reference mixes the entries and pins the last root.
#[tokio::test]
async fn unwrapped_entries_are_independent_roots_and_all_are_pinned() {
    let items = [Item::Dir("x"), file("x/1", "one"), file("f", "file"), Item::Dir("y"), file("y/2", "two")];
    let host = Arc::new(Collector::new());
    let (events, _) = add(params(), Memory::of(&items), &host).await;
    assert_eq!(
        lines(&events),
        r#""x/1" Qmci4MUoKezwuEyoLbn7LbD8Z3mcyN6q2AHiT4Yp8srdKy 11
"x" QmaoT5PTmSwzp7YZxWuLkPJ9oQPPRpYSmzG73L6nHcsZ8L 58
"f" QmR459SsYbjbkde7KMYPiXkV1tgSZc4GtpgahtrENjVqTY 12
"y/2" QmNaRTGzBpmuPhLaGSgRsNkh37zUqRZ7SGNocxvj4oVKAe 11
"y" QmZDWc8CWiMa2BJMtBy28iH4efkHPT9v9VGFeS1pWVpSMw 58
"#
    );
    let roots: Vec<_> = [1, 2, 4].iter().map(|&i: &usize| events[i].cid.unwrap()).collect();
    assert_eq!(pinned(&host), roots);
    // The empty directory came once; nothing was wrapped around the file.
    assert_eq!(host.kept().puts.len(), events.len() + 1);
}

/// Recorded from 1.1.6, `several-and-odd-entries.json`.
#[tokio::test]
async fn odd_entries_become_what_the_reference_makes_of_them() {
    let check = async |items: &[Item], wrap: bool, expected: &str| {
        let mut params = params();
        params.wrap_with_directory = wrap;
        let host = Arc::new(Collector::new());
        let (events, error) = add(params, Memory::of(items), &host).await;
        assert_eq!(error, None, "{items:?}");
        assert_eq!(lines(&events), expected, "{items:?}");
        host.assert_complete(events.last().unwrap().cid.unwrap());
    };
    check(
        &[Item::Dir("d"), file("d/a", "first"), file("d/a", "second")],
        false,
        r#""d/a" QmNMiA2ge3gVEnxZjke5u4PiBd6uvmQ5gJqLVhG3N8BSKj 13
"d/a" QmU5NLRJ7ndizQdYSyyvsp9p8bXRpfMJLfT272B8Ezueuc 14
"d" QmQD1wM6G4UMRvjtSsN8MurEwp5156VsnEtLQQXmN1XETf 61
"#,
    )
    .await;
    check(
        &[file("d/a", "a"), Item::Dir("d")],
        false,
        r#""d/a" QmfDmsHTywy6L9Ne5RXsj5YumDedfBLMvCvmaxjBoe6w4d 9
"d" QmZijeEt7SDeKdj52Y5PBy4QrnhHHiUGcvTyt3a7yCFhtM 56
"d" QmZijeEt7SDeKdj52Y5PBy4QrnhHHiUGcvTyt3a7yCFhtM 56
"#,
    )
    .await;
    check(
        &[file("p", "a file"), file("p/q", "below it")],
        true,
        r#""p" Qmc6gKrNV4Bta84WZGiU7BpCpFuz9S35CGFCFNR2hkNpbv 14
"" QmchMH1jM2P4VK3gGnBT3Lr32FwN38R13dFUqkPWpUyD5y 61
"#,
    )
    .await;
    check(
        &[file("/abs/path", "named %2Fabs%2Fpath")],
        false,
        r#""abs/path" QmW6onQaLGQKF13o71SAAGXogfoF68TpqdF3wjaKtHQ7A5 27
"abs" QmZ5A2j5qHbe67XzPsBUcgmRzVDmJexkwEqEgFwbFBFZYg 77
"#,
    )
    .await;
    check(&[file("..", "named %2E%2E")], false, "\"\" Qmb7tx4r72rtnxMsFGCWPXiq4mRJC7E2AWz9qRQp9gaW1r 20\n")
        .await;
    check(&[], true, "\"\" QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn 4\n").await;
}

#[tokio::test]
async fn a_file_and_a_directory_of_one_name_are_an_error() {
    let mut wrapped = params();
    wrapped.wrap_with_directory = true;
    let host = Arc::new(Collector::new());
    let (_, error) = add(wrapped.clone(), Memory::of(&[file("d/a", "a"), file("d", "d")]), &host).await;
    assert_eq!(error, Some(Error::EntryExists));
    let (_, error) =
        add(wrapped, Memory::of(&[file("p", "a"), file("x", "x"), file("p/q", "q")]), &host).await;
    assert_eq!(error, Some(Error::NotADirectory("p".into())));
    assert_eq!(pinned(&host), []);
}

#[tokio::test]
async fn deep_paths_are_refused() {
    let host = Arc::new(Collector::new());
    let deep: &'static str = "d/".repeat(1025).leak();
    let (_, error) = add(params(), Memory::of(&[file(deep, "x")]), &host).await;
    assert_eq!(error, Some(Error::TooDeep("d/d/d/d".into())));
    let most: &'static str = "d/".repeat(1024).leak();
    let (events, error) = add(params(), Memory::of(&[file(most, "x")]), &host).await;
    assert_eq!((events.len(), error), (1024, None));
}

#[tokio::test]
async fn an_upload_without_parts_is_the_callers_fault() {
    let host = Arc::new(Collector::new());
    let (events, error) = add(params(), Memory::of(&[]), &host).await;
    assert_eq!(events, []);
    assert_eq!(api::Error::from(error.unwrap()).kind, ErrorKind::BadRequest);
    assert_eq!(host.kept().puts, []);
}

#[tokio::test]
async fn pins_are_recursive_and_carry_options_and_allocations() {
    let mut params = params();
    params.options = PinOptions {
        replication_factor_min: 1,
        replication_factor_max: 2,
        name: "n".into(),
        mode: PinMode::Direct,
        ..PinOptions::default()
    };
    let host = Arc::new(Collector::with(Destination::Takes, vec![peer(1), peer(2)]));
    add(params.clone(), Memory::of(&[file("a", "a")]), &host).await;
    {
        let kept = host.kept();
        let pin = &kept.pins[0];
        assert_eq!(
            (pin.options.mode, pin.max_depth, pin.options.name.as_str()),
            (PinMode::Recursive, -1, "n")
        );
        assert_eq!(pin.allocations.as_deref(), Some(&[peer(1), peer(2)][..]));
        assert_eq!(kept.destinations, [peer(1), peer(2)]);
    }
    params.options.replication_factor_min = -1;
    add(params, Memory::of(&[file("a", "a")]), &host).await;
    assert_eq!(host.kept().pins[1].allocations.as_deref(), Some(&[][..]));
}

#[tokio::test]
async fn local_sends_blocks_to_this_peer_and_makes_it_an_allocation() {
    let mut params = params();
    params.local = true;
    params.options.replication_factor_min = 1;
    let host = Arc::new(Collector::with(Destination::Takes, vec![peer(1), peer(2)]));
    let (events, _) = add(params.clone(), Memory::of(&[file("a", "a")]), &host).await;
    assert_eq!(events[0].allocations, [peer(1), peer(9)]);
    assert_eq!(host.kept().destinations, [peer(9)]);
    // Chosen peers stay as they are.
    params.options.user_allocations = Some(vec![peer(1)]);
    let (events, _) = add(params, Memory::of(&[file("a", "a")]), &host).await;
    assert_eq!(events[0].allocations, [peer(1), peer(2)]);
    assert_eq!(host.kept().destinations, [peer(9)]);
}

#[tokio::test]
async fn no_pin_writes_blocks_alone() {
    let mut params = params();
    params.no_pin = true;
    let host = Arc::new(Collector::new());
    let (events, error) = add(params, Memory::of(&[file("a", "a")]), &host).await;
    assert_eq!((events.len(), error), (1, None));
    host.assert_complete(events[0].cid.unwrap());
    assert_eq!(pinned(&host), []);
}

#[tokio::test]
async fn when_all_destinations_fail_the_error_comes_after_the_events() {
    let host = Arc::new(Collector::with(Destination::Refuses, vec![peer(1)]));
    let items = [file("big", vec![1; 40 * 262_144]), file("small", "x")];
    let (events, error) = add(params(), Memory::of(&items), &host).await;
    assert_eq!(events.len(), 2);
    assert_eq!(error, Some(Error::AllDestinationsFailed));
    assert_eq!(pinned(&host), []);
}

#[tokio::test]
async fn an_upload_that_breaks_off_pins_nothing() {
    let host = Arc::new(Collector::new());
    let mut upload = Memory::of(&[file("a", "hello")]);
    upload.end = Some(api::Error::internal("multipart: NextPart: EOF"));
    let (events, error) = add(params(), upload, &host).await;
    assert_eq!(events.len(), 1);
    assert_eq!(error.unwrap().to_string(), "multipart: NextPart: EOF");
    assert_eq!(pinned(&host), []);
}

#[tokio::test]
async fn parameter_errors_come_when_the_reference_sees_them() {
    let host = Arc::new(Collector::new());
    let mut bad = params();
    bad.chunker = "foo".into();
    let (events, error) = add(bad.clone(), Memory::of(&[Item::Dir("d")]), &host).await;
    assert_eq!((events.len(), error), (1, None), "a directory needs no chunker");
    let (_, error) = add(bad, Memory::of(&[file("f", "x")]), &host).await;
    assert_eq!(error.unwrap().to_string(), "unrecognized chunker option: foo");
    let mut bad = params();
    bad.no_copy = true;
    let (_, error) = add(bad, Memory::of(&[file("f", "x")]), &host).await;
    assert_eq!(error, Some(Error::MissingPath));
    let mut bad = params();
    bad.shard = true;
    let (_, error) = add(bad, Memory::of(&[file("f", "x")]), &host).await;
    assert_eq!(error.unwrap().to_string(), "block doesn't fit in empty shard: shard size too small?");
}

/// Content without end, and a count of what was asked for.
struct Endless(usize, Arc<std::sync::atomic::AtomicUsize>);

#[async_trait::async_trait]
impl api::Upload for Endless {
    async fn next_entry(&mut self) -> api::Result<Option<api::Entry>> {
        self.0 += 1;
        Ok((self.0 == 1).then(|| super::entry(b"f", api::EntryKind::File)))
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        self.1.fetch_add(65536, std::sync::atomic::Ordering::Relaxed);
        Ok(Some(Bytes::from_static(&[0; 65536])))
    }
}

#[tokio::test]
async fn a_stalled_destination_stops_the_reading_and_a_dropped_stream_ends_all() {
    // Chunks that differ, so that none is left out as a repetition.
    let host = Arc::new(Collector::with(Destination::Stalls, vec![peer(1)]));
    let n_bytes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    struct Differing(Endless);
    #[async_trait::async_trait]
    impl api::Upload for Differing {
        async fn next_entry(&mut self) -> api::Result<Option<api::Entry>> {
            self.0.next_entry().await
        }
        async fn read(&mut self) -> api::Result<Option<Bytes>> {
            self.0.read().await?;
            let n = self.0.1.load(std::sync::atomic::Ordering::Relaxed);
            Ok(Some(Bytes::from([n.to_le_bytes(); 8192].concat())))
        }
    }
    let upload = Box::new(Differing(Endless(0, n_bytes.clone())));
    let mut stream = import(params(), upload, host.clone());
    // Polls until nothing moves: the import waits for room, not for the clock.
    let mut seen = usize::MAX;
    let started = std::time::Instant::now();
    while seen != n_bytes.load(std::sync::atomic::Ordering::Relaxed) {
        seen = n_bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert!(started.elapsed() < LIMIT, "reading does not stop: {seen} bytes");
        let polled = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
        assert!(polled.is_err(), "no event is due");
    }
    assert!(seen <= (MAX_QUEUED_BATCHES + 6) * 262_144, "{seen} bytes were read ahead");
    assert!(!host.kept().is_put_dropped);
    drop(stream);
    assert!(host.kept().is_put_dropped);
    assert_eq!(pinned(&host), []);
}
