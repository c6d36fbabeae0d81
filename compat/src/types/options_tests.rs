//! Pin options from query strings: what is read, what is refused and in which words.

use super::*;

const PEER: &str = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";

fn parse(raw: &str) -> Result<PinOptions, String> {
    PinOptions::from_query(&Query::parse(raw))
}

#[test]
fn an_empty_query_leaves_everything_unset_but_the_metadata() {
    let options = parse("").unwrap_or_default();
    assert_eq!(
        (options.replication_factor_min, options.replication_factor_max, options.shard_size),
        (0, 0, 0)
    );
    assert!(options.user_allocations.is_none() && options.origins.is_none() && options.pin_update.is_none());
    assert!(options.expire_at.is_zero());
    assert_eq!(options.metadata, Some(BTreeMap::new()));
}

#[test]
fn every_option_is_read() -> Result<(), String> {
    let options = parse(&format!(
        "name=a+b&mode=direct&replication=3&replication-min=x&shard-size=5&user-allocations=zz,{PEER}\
         &expire-at=2999-01-02T03:04:05%2B02:00&expire-in=bad&meta-a=b&meta-a=c&meta-=z\
         &pin-update=QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM&origins=/ip4/1.2.3.4/tcp/1/p2p/{PEER}"
    ))?;
    assert_eq!((options.replication_factor_min, options.replication_factor_max), (3, 3));
    assert_eq!((options.name.as_str(), options.mode, options.shard_size), ("a b", PinMode::Direct, 5));
    assert_eq!(
        options.user_allocations.iter().flatten().map(ToString::to_string).collect::<Vec<_>>(),
        [PEER]
    );
    assert_eq!(options.expire_at.to_string(), "2999-01-02T03:04:05+02:00");
    assert_eq!(options.metadata.iter().flatten().collect::<Vec<_>>(), [(&"a".to_string(), &"b".to_string())]);
    assert!(options.pin_update.is_some() && options.origins.iter().flatten().count() == 1);
    let again = PinOptions::from_query(&options.to_query())?;
    assert!(options.equals(&again) && again.equals(&options));
    assert_eq!(again.pin_update, options.pin_update);
    Ok(())
}

#[test]
fn undecodable_allocations_leave_an_empty_list() {
    assert_eq!(parse("user-allocations=zz").map(|o| o.user_allocations), Ok(Some(vec![])));
}

#[test]
fn an_expiry_may_be_a_span_from_now() -> Result<(), String> {
    let before = Time::now();
    let options = parse("expire-in=1h30m")?;
    let span = options.expire_at.unix_nanos() - before.unix_nanos();
    assert!((5_400_000_000_000..5_460_000_000_000).contains(&span), "{span}");
    Ok(())
}

#[test]
fn the_first_bad_option_is_named_in_the_references_words() {
    let layout = r#" as "2006-01-02T15:04:05Z07:00": cannot parse "#;
    let no_peer = "multiaddress does not contain peer ID: protocol not found in multiaddr";
    let cases = [
        ("replication=x", "parameter replication-min invalid".to_string()),
        ("replication-min=x&shard-size=y", "parameter replication-min invalid".into()),
        ("replication-max=1.5", "parameter replication-max invalid".into()),
        ("replication-min=99999999999999999999", "parameter replication-min invalid".into()),
        ("replication-min=0x1", "parameter replication-min invalid".into()),
        ("replication-min=1_0", "parameter replication-min invalid".into()),
        ("shard-size=-1", "parameter shard_size is invalid".into()),
        ("shard-size=%2B1", "parameter shard_size is invalid".into()),
        ("shard-size=18446744073709551616", "parameter shard_size is invalid".into()),
        ("expire-at=x", format!("expire-at cannot be parsed: parsing time \"x\"{layout}\"x\" as \"2006\"")),
        ("expire-in=x", "expire-in cannot be parsed: time: invalid duration \"x\"".into()),
        ("expire-in=10", "expire-in cannot be parsed: time: missing unit in duration \"10\"".into()),
        ("expire-in=1d", "expire-in cannot be parsed: time: unknown unit \"d\" in duration \"1d\"".into()),
        ("expire-in=500ms", "expire-in duration too short".into()),
        ("expire-in=-1h", "expire-in duration too short".into()),
        ("pin-update=x", "error decoding update option parameter: invalid cid: cid too short".into()),
        (
            "origins=x",
            "error decoding multiaddress: failed to parse multiaddr \"x\": must begin with /".into(),
        ),
        ("origins=,", "error decoding multiaddress: failed to parse multiaddr \"\": empty multiaddr".into()),
        ("origins=/ip4/127.0.0.1/tcp/1", no_peer.into()),
    ];
    for (input, expected) in cases {
        assert_eq!(parse(input).err(), Some(expected), "{input}");
    }
    assert!(parse("replication=%2B2&replication-max=x").is_ok_and(|o| o.replication_factor_max == 2));
}
