//! The cookie of a session: `<id>.<secret>`.
//!
//! Its name is `__Host-cascor_session`, which a browser takes and sends only over TLS, for this host alone, so that neither a
//! neighbouring host nor a page without TLS can plant one. Plain HTTP to the same machine is the exception: not every browser keeps
//! a `Secure` cookie there, and nothing leaves the machine, so the name is `cascor_session` and `Secure` is left out.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

use crate::api::auth::origin::target::{self, is_loopback};

/// Its name over TLS.
const SECURE_NAME: &str = "__Host-cascor_session";
/// Its name over plain HTTP to this machine.
const LOCAL_NAME: &str = "cascor_session";
/// Whether the request comes from a browser on this machine, without TLS. `tls`: this server speaks it.
fn is_local(headers: &HeaderMap, tls: bool) -> bool {
    // Behind a proxy the browser may use TLS.
    !tls && is_loopback(target::host(headers)) && !target::is_proxied(headers)
}

/// Id and secret in the cookie, both 64 hexadecimal digits: the id becomes part of a Redis key.
pub fn read(headers: &HeaderMap, tls: bool) -> Option<(String, String)> {
    let named = |name: &'static str| pairs(headers).filter_map(move |pair| pair.strip_prefix(name)?.strip_prefix('='));
    let plain = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = |text: &str| {
        let (id, secret) = text.split_once('.')?;
        (plain(id) && plain(secret)).then(|| (id.to_owned(), secret.to_owned()))
    };
    let local = || named(LOCAL_NAME).find_map(parts).filter(|_| is_local(headers, tls));
    named(SECURE_NAME).find_map(parts).or_else(local)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).map(str::trim)
}

/// Sets the session cookie in the answer; 0 `seconds` delete it. `tls`: this server speaks it.
pub fn set(mut response: Response, request: &HeaderMap, tls: bool, value: &str, seconds: i64) -> Response {
    let (name, secure) = if is_local(request, tls) { (LOCAL_NAME, "") } else { (SECURE_NAME, " Secure;") };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds};{secure} HttpOnly; SameSite=Strict");
    response.headers_mut().extend(HeaderValue::try_from(text).map(|text| (header::SET_COOKIE, text)));
    response
}

#[cfg(test)]
mod tests {
    use axum::{http::HeaderName, response::IntoResponse};

    use super::*;

    fn headers(host: &'static str, more: &[(&'static str, &str)]) -> HeaderMap {
        let all = [(header::HOST.as_str(), host)].into_iter().chain(more.iter().copied());
        all.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn over_tls_the_cookie_is_for_this_host_alone_and_on_this_machine_every_browser_keeps_it() {
        for (host, forwarded, tls, over_tls) in [
            ("localhost:8050", None, false, false),
            ("127.0.0.1:8050", None, false, false),
            ("[::1]:8050", None, false, false),
            ("localhost:8050", None, true, true),
            ("dash.example", None, false, true),
            ("10.0.0.5:8050", None, false, true),
            ("localhost", Some(("x-forwarded-proto", "https")), false, true),
            ("localhost", Some(("forwarded", "for=10.0.0.9")), false, true),
        ] {
            let request = headers(host, &forwarded.into_iter().collect::<Vec<_>>());
            let answer = set(().into_response(), &request, tls, "a.b", 60);
            let text = answer.headers()[header::SET_COOKIE].to_str().unwrap();
            assert_eq!(text.starts_with("__Host-cascor_session=a.b; Path=/;"), over_tls, "{host} {text}");
            assert_eq!(text.contains("; Secure;"), over_tls, "{host} {text}");
            assert!(text.contains("HttpOnly; SameSite=Strict") && !text.contains("Domain"), "{text}");
        }
    }

    #[test]
    fn only_what_looks_like_our_cookie_becomes_a_key() {
        let (id, secret) = ("a1".repeat(32), "b2".repeat(32));
        let pair = Some((id.clone(), secret.clone()));
        let cookie = |host, text: String| read(&headers(host, &[("cookie", &text)]), false);
        assert_eq!(cookie("localhost", format!("a=b; {LOCAL_NAME}={id}.{secret}; c=d")), pair);
        assert_eq!(cookie("dash.example", format!("{LOCAL_NAME}=x.y; {SECURE_NAME}={id}.{secret}")), pair);
        assert_eq!(cookie("dash.example", format!("{LOCAL_NAME}={id}.{secret}")), None, "planted without TLS");
        for wrong in [
            format!("{LOCAL_NAME}={id}"),
            format!("{LOCAL_NAME}=*.{secret}"),
            format!("x{LOCAL_NAME}={id}.{secret}"),
            format!("{LOCAL_NAME}=.{secret}"),
            format!("{LOCAL_NAME}={id}{id}.{secret}"),
        ] {
            assert_eq!(cookie("localhost", wrong.clone()), None, "{wrong}");
        }
    }
}
