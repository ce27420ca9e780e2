//! The dashboard: a page and its assets, compiled in, so that it needs no other server.
//!
//! It holds no secrets: all data comes from the API, behind its checks. Its content security policy allows only scripts and styles
//! of this server, none inline.

use axum::{
    extract,
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

static ASSETS: &[Asset] = &assets! {
    "index.html": HTML,
    "style.css": CSS,
    "views.css": CSS,
    "app.js": SCRIPT,
    "base/address.js": SCRIPT,
    "base/api.js": SCRIPT,
    "base/backoff.js": SCRIPT,
    "base/confirm.js": SCRIPT,
    "base/connection.js": SCRIPT,
    "base/copy.js": SCRIPT,
    "base/dom.js": SCRIPT,
    "base/elapsed.js": SCRIPT,
    "base/format.js": SCRIPT,
    "base/key_bindings.js": SCRIPT,
    "base/keys.js": SCRIPT,
    "base/place.js": SCRIPT,
    "base/session.js": SCRIPT,
    "base/session_words.js": SCRIPT,
    "base/stream.js": SCRIPT,
    "base/verdict.js": SCRIPT,
    "charts/axes.js": SCRIPT,
    "charts/chart.js": SCRIPT,
    "charts/charts.css": CSS,
    "charts/export.js": SCRIPT,
    "charts/frames.js": SCRIPT,
    "charts/grid.js": SCRIPT,
    "charts/lines.js": SCRIPT,
    "charts/metrics.js": SCRIPT,
    "charts/overlays.js": SCRIPT,
    "charts/smoothing.js": SCRIPT,
    "compare/aligned.js": SCRIPT,
    "compare/curves.js": SCRIPT,
    "compare/differences.js": SCRIPT,
    "compare/limit.js": SCRIPT,
    "compare/page.js": SCRIPT,
    "compare/table.js": SCRIPT,
    "pipeline/commands.js": SCRIPT,
    "pipeline/control.js": SCRIPT,
    "pipeline/page.js": SCRIPT,
    "pipeline/reasons.js": SCRIPT,
    "pipeline/streams.js": SCRIPT,
    "run/batch.js": SCRIPT,
    "run/configuration.js": SCRIPT,
    "run/controls.js": SCRIPT,
    "run/curves.js": SCRIPT,
    "run/details.js": SCRIPT,
    "run/edit.js": SCRIPT,
    "run/events.js": SCRIPT,
    "run/growth.js": SCRIPT,
    "run/lookup.js": SCRIPT,
    "run/network.js": SCRIPT,
    "run/page.js": SCRIPT,
    "run/series.js": SCRIPT,
    "run/tiles.js": SCRIPT,
    "run/title.js": SCRIPT,
    "run/trainer.js": SCRIPT,
    "runs/actions.js": SCRIPT,
    "runs/align.js": SCRIPT,
    "runs/bulk.js": SCRIPT,
    "runs/choices.js": SCRIPT,
    "runs/columns.js": SCRIPT,
    "runs/config.js": SCRIPT,
    "runs/dialogs.js": SCRIPT,
    "runs/empty.js": SCRIPT,
    "runs/filters.js": SCRIPT,
    "runs/known.js": SCRIPT,
    "runs/list.js": SCRIPT,
    "runs/metric_cache.js": SCRIPT,
    "runs/metric_keys.js": SCRIPT,
    "runs/metric_reader.js": SCRIPT,
    "runs/page.js": SCRIPT,
    "runs/picker.js": SCRIPT,
    "runs/picks.js": SCRIPT,
    "runs/query.js": SCRIPT,
    "runs/runs.css": CSS,
    "runs/selection.js": SCRIPT,
    "runs/table.js": SCRIPT,
    "runs/walk.js": SCRIPT,
    "vendor/uplot.css": CSS,
    "vendor/uplot.js": SCRIPT,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`
pub async fn index(headers: HeaderMap) -> Response {
    answer(&ASSETS[0], &headers)
}

/// `GET /assets/{*name}`
pub async fn asset(extract::Path(name): extract::Path<String>, headers: HeaderMap) -> Response {
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
    use std::path::{Component, Path, PathBuf};

    use super::*;

    /// A relative name, seen from a folder.
    fn resolved(folder: &Path, name: &str) -> PathBuf {
        let mut path = folder.to_path_buf();
        for part in Path::new(name).components() {
            match part {
                Component::ParentDir => assert!(path.pop(), "{name} is outside"),
                Component::Normal(part) => path.push(part),
                _ => {}
            }
        }
        path
    }

    #[test]
    fn the_page_refers_to_its_own_assets_alone() {
        for Asset(name, kind, bytes) in ASSETS {
            let text = std::str::from_utf8(bytes).unwrap();
            let vendored = name.starts_with("vendor/");
            let folder = Path::new(name).parent().unwrap();
            for line in text.lines().filter(|_| !vendored) {
                for (mark, base) in
                    [("from \"", folder), ("href=\"assets/", Path::new("")), ("src=\"assets/", Path::new(""))]
                {
                    for part in line.split(mark).skip(1) {
                        let wanted = resolved(base, part.split('"').next().unwrap());
                        assert!(ASSETS.iter().any(|asset| wanted == Path::new(asset.0)), "{name} wants {wanted:?}");
                    }
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

    #[test]
    fn every_reason_of_a_gap_has_its_words() {
        let words = include_str!("pipeline/reasons.js");
        for reason in crate::gaps::GapReason::ALL {
            assert!(words.contains(&format!("\n  {reason}: \"")), "{reason}");
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
        assert_eq!(asset(extract::Path("../mod.rs".into()), HeaderMap::new()).await.status(), StatusCode::NOT_FOUND);
    }
}
