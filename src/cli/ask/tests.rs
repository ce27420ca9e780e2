use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::logging::Chain;

/// What a client makes of a server that gives this answer to a request, and closes the connection.
async fn asked(answer: &'static [u8]) -> Result<(Vec<u8>, HeaderMap), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap()
    };
    let client = DaemonClient::new(url, &Credentials::default(), &Settings::default()).unwrap();
    let client = QueryClient::Daemon(Box::new(client));
    let ask = async {
        let mut response = client.get("/api/x?y=%20").await.map_err(|error| Chain(&error).to_string())?;
        let mut body = Vec::new();
        while let Some(bytes) = response.next().await.map_err(|error| Chain(&error).to_string())? {
            body.extend_from_slice(&bytes);
        }
        Ok((body, response.trailers().clone()))
    };
    let (request, result) = tokio::join!(serve, ask);
    assert!(request.starts_with("GET /api/x?y=%20 HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
    result
}

#[tokio::test]
async fn an_answer_is_read_in_every_framing() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n",
    ] {
        let (body, _) = asked(answer).await.unwrap();
        assert_eq!(body, b"hello", "{}", answer.escape_ascii());
    }
    let with_trailer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    let (body, trailers) = asked(with_trailer).await.unwrap();
    assert_eq!((body.as_slice(), trailers["x-sum"].as_bytes()), (&b"a"[..], &b"7"[..]));
}

#[tokio::test]
async fn a_missing_or_truncated_answer_is_reported() {
    for (answer, expected) in [
        (&b""[..], "gave no answer of HTTP; the address is probably https://127.0.0.1:"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "gave no answer of HTTP; the address is probably https://127.0.0.1:"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "the daemon's answer broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhel", "the daemon's answer broke off"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{\"detail\":\"none\"}", "none"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: HTTPS://a.example/x\r\n\r\n",
            "leads to HTTPS://a.example: give that as --url",
        ),
    ] {
        let error = asked(answer).await.unwrap_err();
        assert!(error.contains(expected), "{}: {error}", answer.escape_ascii());
    }
}
