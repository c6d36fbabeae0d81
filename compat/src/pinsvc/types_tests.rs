//! Bodies and queries, as the reference reads them.

use super::*;
use crate::go::json;

const CID: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq";

fn query(text: &str) -> Result<ListOptions, String> {
    ListOptions::from_query(&Query::parse(text))
}

#[test]
fn bodies_are_read_as_gos_decoder_reads_them() {
    let wrong = |word: &str, field: &str, wanted: &str| {
        Err(format!("json: cannot unmarshal {word} into Go struct field Pin.{field} of type {wanted}"))
    };
    let long = "n".repeat(256);
    let cases: Vec<(String, Result<String, String>)> = vec![
        (String::new(), Err("EOF".into())),
        (" \n".into(), Err("EOF".into())),
        ("{".into(), Err("unexpected EOF".into())),
        ("{\"cid\":\"Qm".into(), Err("unexpected EOF".into())),
        ("tru".into(), Err("unexpected EOF".into())),
        (r#"{"name":"\u00"#.into(), Err("unexpected EOF".into())),
        (r#"{"name":"\q"#.into(), Err("invalid character 'q' in string escape code".into())),
        ("x".into(), Err("invalid character 'x' looking for beginning of value".into())),
        ("[]".into(), Err("json: cannot unmarshal array into Go value of type pinsvc.Pin".into())),
        ("\"x\"".into(), Err("json: cannot unmarshal string into Go value of type pinsvc.Pin".into())),
        ("5 x".into(), Err("json: cannot unmarshal number into Go value of type pinsvc.Pin".into())),
        ("null".into(), Ok(r#"{"cid":null}"#.into())),
        ("{}".into(), Ok(r#"{"cid":null}"#.into())),
        (r#"{"cid":null}"#.into(), Ok(r#"{"cid":null}"#.into())),
        (r#"{"cid":""}"#.into(), Err("invalid cid: cid too short".into())),
        (r#"{"cid":5}"#.into(), wrong("number", "cid", "string")),
        (format!(r#"{{"cid":{{"/":"{CID}"}}}}"#), wrong("object", "cid", "string")),
        (r#"{"name":5}"#.into(), wrong("number", "name", "string")),
        (format!(r#"{{"name":"{long}"}}"#), Err("pin name is over 255 chars".into())),
        (format!(r#"{{"name":"{}"}}"#, &long[1..]), Ok(format!(r#"{{"cid":null,"name":"{}"}}"#, &long[1..]))),
        (r#"{"meta":{"a":1}}"#.into(), wrong("number", "meta", "string")),
        (r#"{"meta":[]}"#.into(), wrong("array", "meta", "map[string]string")),
        (r#"{"origins":"x"}"#.into(), wrong("string", "origins", "[]api.Multiaddr")),
        (r#"{"origins":[true]}"#.into(), wrong("bool", "origins", "string")),
        (r#"{"origins":[null]}"#.into(), Err("failed to parse multiaddr \"\": empty multiaddr".into())),
        (r#"{"origins":["x"]}"#.into(), Err("failed to parse multiaddr \"x\": must begin with /".into())),
        // what a field cannot be is worse than another's type, wherever it stands
        (r#"{"meta":1,"origins":1,"cid":"x"}"#.into(), Err("invalid cid: cid too short".into())),
        (r#"{"origins":1,"meta":1}"#.into(), wrong("number", "origins", "[]api.Multiaddr")),
        (
            format!(r#"{{"CID":"x{CID}","cid":"{CID}"}}"#).replace("xQm", "Qm"),
            Ok(format!(r#"{{"cid":"{CID}"}}"#)),
        ),
        (
            r#"{"Meta":{"a":"1","b":null},"META":{"a":"2"},"name":"<","origins":[],"x":[{}]} trailing"#
                .into(),
            Ok(r#"{"cid":null,"name":"\u003c","meta":{"a":"2","b":""}}"#.into()),
        ),
        (
            r#"{"origins":["/ip4/127.0.0.1/tcp/1"],"meta":{"a":"1"},"meta":null}"#.into(),
            Ok(r#"{"cid":null,"origins":["/ip4/127.0.0.1/tcp/1"]}"#.into()),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(Pin::from_body(&body).map(|pin| json::to_string(&pin)), expected, "{body}");
    }
}

#[test]
fn bad_queries_are_refused_in_the_order_of_the_reference() {
    let long = "n".repeat(256);
    let cases = [
        ("cid=x", "error decoding cid x: invalid cid: cid too short"),
        ("cid=,", "error decoding cid : invalid cid: cid too short"),
        ("cid=x&limit=x", "error decoding cid x: invalid cid: cid too short"),
        (&format!("name={long}&status=x"), "error in 'name' query param: longer than 255 chars"),
        ("status=bogus&before=x", "error decoding 'status' query param: no valid filter"),
        ("status=undefined", "error decoding 'status' query param: no valid filter"),
        ("status=,", "error decoding 'status' query param: no valid filter"),
        (
            "before=2020-01-01&after=x",
            r#"error decoding 'before' query param: 2020-01-01: parsing time "2020-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
        ),
        (
            "after=x&limit=x",
            r#"error decoding 'after' query param: x: parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
        ),
        (
            "limit=-1&meta=x",
            r#"error parsing 'limit' query param: -1: strconv.ParseUint: parsing "-1": invalid syntax"#,
        ),
        (
            "limit=%2B1",
            r#"error parsing 'limit' query param: +1: strconv.ParseUint: parsing "+1": invalid syntax"#,
        ),
        (
            "limit=18446744073709551616",
            r#"error parsing 'limit' query param: 18446744073709551616: strconv.ParseUint: parsing "18446744073709551616": value out of range"#,
        ),
        (
            "meta=x",
            "error unmarshalling 'meta' query param: x: invalid character 'x' looking for beginning of value",
        ),
        ("meta={", "error unmarshalling 'meta' query param: {: unexpected end of JSON input"),
        (
            "meta=[]",
            "error unmarshalling 'meta' query param: []: json: cannot unmarshal array into Go value of type map[string]string",
        ),
        (
            "meta={\"a\":1,\"b\":[]}",
            "error unmarshalling 'meta' query param: {\"a\":1,\"b\":[]}: json: cannot unmarshal number into Go value of type string",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(query(text).map(|_| ()), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_a_query_leaves_out_has_its_default() -> Result<(), String> {
    let options = query("match=exact&unknown=1&before=&meta=null")?;
    assert_eq!((options.limit, options.filters.status, options.before.is_zero()), (10, Status::ANY, true));
    let options = query("limit=18446744073709551615&status=pinned,%20fail%20ed,x")?;
    assert_eq!((options.limit, options.filters.status), (u64::MAX, Status(10)));
    Ok(())
}

#[test]
fn names_are_matched_by_each_strategy() -> Result<(), String> {
    let cases = [
        ("name=Alpha", "Alpha", true),
        ("name=alpha", "Alpha", false),
        ("name=alpha&match=bogus", "Alpha", false),
        ("name=ALPHA&match=iexact", "alpha", true),
        ("name=alph&match=iexact", "alpha", false),
        ("name=STRASSE&match=iexact", "straße", false),
        ("name=%CE%A3%CF%83%CF%82&match=iexact", "ΣΣΣ", true),
        ("name=%E2%84%AA&match=iexact", "k", true),
        ("name=I&match=iexact", "ı", false),
        ("name=lph&match=partial", "Alpha", true),
        ("name=LPH&match=partial", "Alpha", false),
        ("name=LPH&match=ipartial", "Alpha", true),
        ("name=%C3%89T&match=ipartial", "étage", true),
        ("match=partial", "", true),
        ("name=&match=exact", "x", true),
    ];
    for (text, name, expected) in cases {
        assert_eq!(query(text)?.filters.match_pin(name, None), expected, "{text} {name}");
    }
    Ok(())
}

#[test]
fn metadata_matches_when_all_that_is_asked_for_is_there() -> Result<(), String> {
    let meta = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
    let cases = [
        ("{}", true),
        (r#"{"a":"1"}"#, true),
        (r#"{"a":"1","b":""}"#, true),
        (r#"{"a":"1","c":""}"#, true),
        (r#"{"a":"1","c":"x"}"#, false),
        (r#"{"a":"2"}"#, false),
        (r#"{"a":null}"#, false),
    ];
    for (text, expected) in cases {
        let filters = query(&format!("meta={text}"))?.filters;
        assert_eq!(filters.match_pin("", Some(&meta)), expected, "{text}");
    }
    Ok(())
}
