//! The OpenAPI document against what a real daemon answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    api::{both, ready},
    support::{daemon::Daemon, http},
};

const RUN: &str = "6f0c853b-6794-4685-b2f5-43019da8836b";

/// Validates a value against a schema, with the subset of JSON Schema that the document uses; `Err` names the mismatch.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).ok_or(format!("{at}: no {name}"))?;
        return fits(document, schema, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let tried: Vec<_> = choices.iter().map(|choice| fits(document, choice, value, at)).collect();
        let fitting = tried.iter().filter(|tried| tried.is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{at}: fits {fitting} of {tried:?}")) };
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let typed = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        _ => true,
    };
    if !typed {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    if let Some(text) = value.as_str() {
        let formed = match schema["format"].as_str() {
            Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
            Some("uuid") => uuid::Uuid::try_parse(text).is_ok(),
            _ => true,
        };
        if !formed {
            return Err(format!("{at}: `{text}` is no {}", schema["format"]));
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], item, &format!("{at}[{n}]"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in object {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => return Err(format!("{at} is not in the document")),
            (Value::Null, Value::Null | Value::Bool(true)) => {}
            (Value::Null, more) => fits(document, more, value, &at)?,
            (schema, _) => fits(document, schema, value, &at)?,
        }
    }
    Ok(())
}

/// Requests and their methods; every route at least once.
fn questions() -> Vec<(&'static str, &'static str, String, Option<Value>)> {
    let run = |rest: &str| format!("/api/runs/{RUN}{rest}");
    let get = |route: &'static str, path: String| ("get", route, path, None);
    let post = |route: &'static str, path: String, body: Value| ("post", route, path, Some(body));
    vec![
        get("/healthz", "/healthz".into()),
        get("/readyz", "/readyz".into()),
        get("/metrics", "/metrics".into()),
        get("/api/openapi.json", "/api/openapi.json".into()),
        get("/api/status", "/api/status".into()),
        get("/api/runs", "/api/runs?limit=5".into()),
        get("/api/runs/{run_id}", run("")),
        get("/api/runs/{run_id}", "/api/runs/00000000-0000-4000-8000-000000000000".into()),
        get("/api/runs/{run_id}/topology", run("/topology")),
        get("/api/runs/{run_id}/events", run("/events?limit=1")),
        get("/api/runs/{run_id}/aggregates", run("/aggregates?fields=loss,grad,nothing")),
        get("/api/runs/{run_id}/growth", run("/growth")),
        get("/api/runs/{run_id}/gaps", run("/gaps")),
        get("/api/runs/{run_id}/gaps", run("/gaps?limit=1&reason=disconnected&start_time=2026-01-01")),
        get("/api/gaps", "/api/gaps?limit=5".into()),
        get("/api/gaps", "/api/gaps?reason=nothing".into()),
        get("/api/compare", format!("/api/compare?run_id={RUN}")),
        get("/api/compare", format!("/api/compare?run_id={RUN}&field=loss&field=grad")),
        get("/api/compare", "/api/compare".into()),
        get("/api/export", format!("/api/export?run_id={RUN}&format=json")),
        get("/api/metrics/range", format!("/api/metrics/range?run_id={RUN}&limit=3")),
        get("/api/metrics/range", format!("/api/metrics/range?run_id={RUN}&limit=3&fields=loss,grad,phase")),
        get("/api/metrics/range", format!("/api/metrics/range?run_id={RUN}&max_points=1000")),
        get("/api/metrics/range", format!("/api/metrics/range?run_id={RUN}&max_points=5&field=grad&field=epoch")),
        get("/api/metrics/range", format!("/api/metrics/range?run_id={RUN}&max_points=5&by=epoch&fields=loss,grad")),
        get("/api/metrics", "/api/metrics".into()),
        get("/api/topology", "/api/topology".into()),
        get("/api/network/topology", "/api/network/topology".into()),
        get("/api/history", "/api/history".into()),
        get("/api/state", "/api/state".into()),
        get("/api/state", format!("/api/state?run_id={RUN}")),
        get("/api/metrics/history", "/api/metrics/history?limit=7".into()),
        get("/api/dataset", "/api/dataset".into()),
        get("/api/network/stats", "/api/network/stats".into()),
        get("/api/health", "/api/health".into()),
        get("/api/v1/redis/status", "/api/v1/redis/status".into()),
        get("/api/v1/redis/metrics", "/api/v1/redis/metrics".into()),
        get("/api/v1/cassandra/status", "/api/v1/cassandra/status".into()),
        get("/api/v1/cassandra/metrics", "/api/v1/cassandra/metrics".into()),
        // An accepted stream would not end.
        get("/api/stream", "/api/stream?run_id=none".into()),
        get("/api/session", "/api/session".into()),
        post("/api/session", "/api/session".into(), json!({"token": "there are none"})),
        ("delete", "/api/session", "/api/session".into(), None),
        post("/api/messages", "/api/messages".into(), json!([{"run_id": RUN, "epoch": 30, "loss": 1}, {"a": "b"}])),
        post("/api/messages", "/api/messages".into(), json!([])),
        post("/api/control", "/api/control".into(), json!({"command": "status"})),
        post("/api/control", "/api/control".into(), json!({"command": "stop", "target": "trainer"})),
        post("/api/runs", "/api/runs".into(), json!({"run_name": "documented"})),
        post("/api/runs/{run_id}/notes", run("/notes"), json!({"notes": "n", "tags": ["t"]})),
        post("/api/runs/{run_id}/notes", run("/notes"), json!({"notes": 7})),
        (
            "patch",
            "/api/runs/{run_id}",
            run(""),
            Some(json!({"name": "by hand", "add_tags": ["t"], "archived": false})),
        ),
        ("patch", "/api/runs/{run_id}", run(""), Some(json!({"nmae": "by hand"}))),
        get("/api/runs/{run_id}", "/api/runs/by%20hand?limit=0".into()),
        post("/api/runs/{run_id}/complete", run("/complete"), json!({"status": "failed"})),
        ("delete", "/api/runs/{run_id}", run("?force=maybe"), None),
        ("delete", "/api/runs/{run_id}", run("?force=true"), None),
    ]
}

#[test]
fn every_answer_fits_the_document() {
    both("every_answer_fits_the_document", |builder, redis| {
        let (daemon, _) = ready(builder, redis, 25);
        let document = daemon.get("/api/openapi.json").json();
        let mut asked = BTreeSet::new();
        for (method, route, path, body) in questions() {
            check(&daemon, &document, (method, route), &path, body.as_ref());
            asked.insert((route.to_owned(), method.to_owned()));
        }
        let paths = document["paths"].as_object().unwrap();
        let listed = |(path, methods): (&String, &Value)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())).collect::<Vec<_>>()
        };
        assert_eq!(asked, paths.iter().flat_map(listed).collect(), "every route is asked");
    });
}

fn check(daemon: &Daemon, document: &Value, (method, route): (&str, &str), path: &str, body: Option<&Value>) {
    let text = body.map(Value::to_string).unwrap_or_default();
    let answer = http::send(daemon.http_port(), &method.to_uppercase(), path, &[], &text).unwrap();
    let operation = &document["paths"][route][method];
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path}: {} is not in the document: {}", answer.status, answer.body);
    if answer.status == 204 {
        return;
    }
    let kind = answer.header("content-type").unwrap_or("text/plain").split(';').next().unwrap().to_owned();
    let schema = &response["content"][kind.as_str()]["schema"];
    assert!(schema.is_object(), "{method} {path}: {kind} is not in the document");
    let value = if kind == "application/json" { answer.json() } else { Value::String(answer.body.clone()) };
    fits(document, schema, &value, path).unwrap_or_else(|problem| panic!("{method} {problem}"));
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let value = json!(answer.header(name));
        fits(document, &header["schema"], &value, &format!("{path} {name}"))
            .unwrap_or_else(|problem| panic!("{problem}"));
    }
    // Every parameter of the request is in the document.
    let given = path.split_once('?').map_or("", |(_, query)| query);
    for name in given.split('&').filter_map(|pair| Some(pair.split_once('=')?.0)) {
        let listed = operation["parameters"].as_array().into_iter().flatten().any(|known| known["name"] == name);
        assert!(listed, "{path}: `{name}` is not in the document");
    }
}

/// Nothing that a client misspells is ignored; cache busters are.
#[test]
fn an_unknown_parameter_is_refused_by_name_on_every_route() {
    let redis = crate::support::redis::Redis::start();
    let (daemon, _) = ready(Daemon::on(&redis), &redis, 3);
    let document = daemon.get("/api/openapi.json").json();
    for (route, methods) in document["paths"].as_object().unwrap() {
        let path = route.replace("{run_id}", RUN);
        for method in methods.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            let ask = |query: &str| {
                http::send(daemon.http_port(), &method.to_uppercase(), &format!("{path}?{query}"), &[], "").unwrap()
            };
            let refused = ask("limt=5");
            assert!(refused.status == 400 && refused.body.contains("`limt`"), "{method} {path}: {}", refused.body);
            // An accepted stream would not end, and an accepted deletion would leave no run.
            if path != "/api/stream" && method != "delete" {
                let taken = ask("_=1764403200");
                assert!(!taken.body.contains("unknown parameter"), "{method} {path}: {}", taken.body);
            }
        }
    }
}

#[test]
fn every_parameter_of_the_document_is_accepted() {
    let redis = crate::support::redis::Redis::start();
    let (daemon, _) = ready(Daemon::on(&redis), &redis, 3);
    let document = daemon.get("/api/openapi.json").json();
    for (route, methods) in document["paths"].as_object().unwrap() {
        let path = route.replace("{run_id}", RUN);
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] != "query" {
                continue;
            }
            let answer = daemon.get(&format!("{path}?{name}=%00"));
            assert!(!answer.body.contains("unknown parameter"), "{path} {name}: {}", answer.body);
        }
    }
    // `fits` can fail.
    let wrong = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false});
    assert!(
        fits(&document, &wrong, &json!({"a": "x"}), "").is_err()
            && fits(&document, &wrong, &json!({"b": 1}), "").is_err()
    );
}
