//! Credentials and tokens, held against the reference's answers.

use super::*;

fn credentials() -> Credentials {
    let pairs = [("user", "secret"), ("other", "p:w d"), ("empty", ""), ("名", "ключ")];
    Credentials::new(pairs.iter().map(|(user, password)| ((*user).into(), (*password).into())).collect())
}

fn user(line: &[u8]) -> Result<String, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
    credentials().user(&headers)
}

fn with_basic(text: &str) -> Result<String, Refusal> {
    user(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(text)).as_bytes())
}

/// A token of `head` and `claims`, signed with HMAC-SHA256.
fn token(head: &str, claims: &str, password: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let signature = mac::<Hmac<Sha256>>(password, &signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Whether a token with these claims, signed by `user`, counts in the year 2001.
fn verified(claims: &str) -> Result<String, &'static str> {
    credentials().verify(token(HS256, claims, "secret").as_bytes(), 1_000_000_000)
}

#[test]
fn a_password_counts_whatever_the_case_of_its_scheme() {
    assert_eq!(with_basic("user:secret").as_deref(), Ok("user"));
    assert_eq!(with_basic("other:p:w d").as_deref(), Ok("other"));
    assert_eq!(with_basic("名:ключ").as_deref(), Ok("名"));
    assert_eq!(user(b"basic dXNlcjpzZWNyZXQ=").as_deref(), Ok("user"));
    assert_eq!(user(b"BASIC dXNlcjpzZWNyZXQ=").as_deref(), Ok("user"));
}

#[test]
fn wrong_and_empty_passwords_are_refused() {
    let wrong =
        ["user:wrong", "User:secret", "user:", ":secret", "empty:", ":", "user:secret ", "user:secret\0"];
    for text in wrong {
        assert_eq!(with_basic(text), Err(Refusal::WrongPassword), "{text:?}");
    }
}

#[test]
fn what_cannot_be_read_is_as_good_as_nothing() {
    let huge = [&b"Basic "[..], &b"A".repeat(100_000)].concat();
    let lines: [&[u8]; 12] = [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic !!!",
        b"Basic bm9jb2xvbg==",
        b"Basic dXNlcjpzZWNyZXQ",
        b"Basic  dXNlcjpzZWNyZXQ=",
        b"Basic\tdXNlcjpzZWNyZXQ=",
        b"Digest x",
        b"Bearer",
        b"\xff\xfe",
        &huge,
    ];
    for line in lines {
        assert_eq!(
            user(line),
            Err(Refusal::Missing),
            "{}",
            String::from_utf8_lossy(&line[..line.len().min(40)])
        );
    }
}

#[test]
fn a_token_is_the_one_of_the_reference_and_opens_again() {
    let credentials = Arc::new(credentials());
    let token = |name: &str| User { name: name.into(), credentials: Arc::clone(&credentials) }.token();
    assert_eq!(
        token("user"),
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJ1c2VyIn0.l5OzH8D-jhBGpWOaTICi65_Njdgq78TV6t_z-5JymtQ"
    );
    for name in ["user", "other", "empty", "名"] {
        let line = format!("bEaReR {}", token(name));
        assert_eq!(user(line.as_bytes()).as_deref(), Ok(name));
    }
}

#[test]
fn tokens_count_by_their_method_issuer_and_signature() {
    let claims = r#"{"iss":"user"}"#;
    assert_eq!(verified(claims).as_deref(), Ok("user"));
    let at = |token: &str| credentials().verify(token.as_bytes(), 1_000_000_000);
    let is_signed = [
        // HS384 and HS512 of the recordings
        "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJ1c2VyIn0.4bjguzmWsGu7GVH8UaxoBOkizu60iYjtnnYSA_U9xg8w_u-Uc1IoT61h4Mn-WD7l",
        "eyJhbGciOiJIUzUxMiJ9.eyJpc3MiOiJ1c2VyIn0.r3lQlEXqsPWA_5a1-Z6oFo-dwICClmX_Wx571gd6Dtb2x9CDEjemTfDEp8IK-IRy4gLMOXaniuOBijYy3m54Vg",
    ];
    for token in is_signed {
        assert_eq!(at(token).as_deref(), Ok("user"));
    }
    for head in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"alg":256}"#,
        "{}",
        "null",
        "[]",
        r#"{"alg":"HS256"} x"#,
        "",
    ] {
        assert!(at(&token(head, claims, "secret")).is_err(), "{head}");
    }
    let whole = token(HS256, claims, "secret");
    let (signed, signature) = whole.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        "..".into(),
        "...".into(),
        signed.into(),
        format!("{signed}."),
        format!("{whole}."),
        format!("{whole}="),
        format!("{whole}.x"),
        format!(" {whole}"),
        format!("{signed}.{}", &signature[1..]),
        format!("{}.{signature}", signed.to_lowercase()),
        token(HS256, claims, "Secret"),
        token(HS256, r#"{"iss":"other"}"#, "secret"),
        token(HS256, r#"{"iss":"nobody"}"#, "secret"),
        token(HS256, "{}", "secret"),
    ] {
        assert!(at(&token).is_err(), "{token}");
    }
    assert!(credentials().verify(b"\xff.\xff.\xff", 0).is_err());
}

#[test]
fn times_of_tokens_are_checked_to_the_second() {
    let with = |claim: &str| verified(&format!(r#"{{"iss":"user",{claim}}}"#)).is_ok();
    for claim in [
        r#""exp":1000000001"#,
        r#""exp":1000000001.9"#,
        r#""exp":1e17"#,
        r#""exp":"1000000001""#,
        r#""exp":null"#,
        r#""EXP":1000000001"#,
        r#""exp":1,"exp":1000000001"#,
        r#""nbf":1000000000,"iat":1000000000"#,
        r#""nbf":1000000000.9"#,
        r#""iat":-5"#,
        r#""aud":"x","sub":"y","jti":"z""#,
        r#""aud":["x","y"]"#,
        r#""aud":[],"unknown":{"a":[1,{}]}"#,
        r#""aud":null,"sub":null,"iss":null"#,
    ] {
        assert!(with(claim), "{claim}");
    }
    for claim in [
        r#""exp":1000000000"#,
        r#""exp":1000000000.9"#,
        r#""exp":0"#,
        r#""exp":-1"#,
        r#""exp":1e300"#,
        r#""exp":1e999"#,
        r#""exp":"soon""#,
        r#""exp":"""#,
        r#""exp":" 1000000001""#,
        r#""exp":true"#,
        r#""exp":[1000000001]"#,
        r#""nbf":1000000001"#,
        r#""iat":1000000001"#,
        r#""aud":1"#,
        r#""aud":[1]"#,
        r#""sub":1"#,
        r#""jti":{}"#,
        r#""iss":1"#,
        r#""iss":"nobody""#,
    ] {
        assert!(!with(claim), "{claim}");
    }
    for claims in ["[]", "1", "null", "not json", "", r#"{"iss":"user""#, "\u{feff}{}"] {
        assert!(verified(claims).is_err(), "{claims}");
    }
    assert!(verified(r#"{"iss":"user"} and what follows"#).is_ok(), "only the first value counts");
    let deep = format!(r#"{{"iss":"user","x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    let _ = verified(&deep);
}
