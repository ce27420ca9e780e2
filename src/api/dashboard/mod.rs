//! The dashboard: a page and its assets, compiled in, so that it needs no other server.
//!
//! It holds no secrets: all data comes from the API, behind its checks. Its content security policy allows only scripts and styles
//! of this server, none inline.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::api::error::ApiError;

/// One file: its name, its type, its bytes.
struct Asset(&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $kind:expr,)+) => { [$( Asset($name, $kind, include_bytes!($name)), )+] };
}

static ASSETS: [Asset; 20] = assets! {
    "index.html": HTML,
    "style.css": CSS,
    "views.css": CSS,
    "vendor/uplot.css": CSS,
    "vendor/uplot.js": SCRIPT,
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "chart.js": SCRIPT,
    "compare.js": SCRIPT,
    "control.js": SCRIPT,
    "dom.js": SCRIPT,
    "format.js": SCRIPT,
    "overlays.js": SCRIPT,
    "network.js": SCRIPT,
    "pipeline.js": SCRIPT,
    "run.js": SCRIPT,
    "runs.js": SCRIPT,
    "series.js": SCRIPT,
    "session.js": SCRIPT,
    "stream.js": SCRIPT,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub async fn index(headers: HeaderMap) -> Response {
    answer(&ASSETS[0], &headers)
}

/// `GET /assets/{*name}`
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.0 == name) {
        Some(asset) => answer(asset, &headers),
        None => ApiError::not_found("Not Found").into_response(),
    }
}

fn answer(Asset(_, kind, bytes): &Asset, headers: &HeaderMap) -> Response {
    // Weak, because it is the same with and without compression.
    let tag = format!("W/\"{:016x}\"", xxh3_64(bytes));
    let fixed = [
        (header::CONTENT_TYPE, *kind),
        // Cached, but revalidated each time: a new daemon has its own page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::body::Bytes::from_static(bytes).into_response()
    };
    let answered = response.headers_mut();
    for (name, value) in fixed {
        // Replaces the default type of a body of bytes.
        answered.insert(name, HeaderValue::from_static(value));
    }
    answered.extend(HeaderValue::try_from(tag).map(|tag| (header::ETAG, tag)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_its_own_assets_alone() {
        for Asset(name, kind, bytes) in &ASSETS {
            let text = std::str::from_utf8(bytes).unwrap();
            let vendored = name.starts_with("vendor/");
            for line in text.lines().filter(|_| !vendored) {
                let named = ["from \"./", "href=\"assets/", "src=\"assets/"];
                for part in named.iter().flat_map(|mark| line.split(mark).skip(1)) {
                    let part = part.split('"').next().unwrap();
                    assert!(ASSETS.iter().any(|asset| asset.0 == part), "{name} wants {part}");
                }
                let foreign = line.contains("//") && line.contains("http") && !line.contains("www.w3.org");
                assert!(!foreign, "{name}: {line}");
                assert!(
                    !line.contains("style=\"") && !line.contains(" onclick=") && !line.contains("innerHTML"),
                    "{name}: {line}"
                );
            }
            assert!(vendored || text.lines().count() < 400, "{name} is long");
            assert!(*kind != HTML || !text.contains("<script>"), "no script within the page");
        }
    }

    #[tokio::test]
    async fn a_cached_asset_is_not_sent_again() {
        let first = index(HeaderMap::new()).await;
        let kinds: Vec<_> = first.headers().get_all(header::CONTENT_TYPE).iter().collect();
        assert_eq!(kinds, [HTML], "one type");
        let tag = first.headers()[header::ETAG].clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag);
        assert_eq!(index(headers).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(asset(Path("../mod.rs".into()), HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
    }
}
