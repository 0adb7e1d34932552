use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::Value;

use super::*;

/// A server that reads one request up to its end, answers with these bytes and closes.
fn server(answer: &'static [u8]) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).expect("it is readable");
            if read == 0 {
                break;
            }
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer).expect("it is writable");
        String::from_utf8_lossy(&request).into_owned()
    });
    (address, serving)
}

fn put(answer: &'static [u8]) -> Result<Value, ClientError> {
    let (address, serving) = server(answer);
    let client = HttpClient::new(&address, Some("pass word")).expect("an address");
    let result = client.put("/v1/x?ttl=5", &[("idempotency-key", "2a")], b"v");
    let request = serving.join().expect("it served");
    assert!(request.starts_with("PUT /v1/x?ttl=5 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("idempotency-key: 2a\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: basic zgvmyxvsddpwyxnzihdvcmq=\r\n"), "{request}");
    result
}

fn get(answer: &'static [u8]) -> Result<KeyReply, ClientError> {
    let (address, serving) = server(answer);
    let result = HttpClient::new(&address, None).expect("an address").read_key("/v1/x");
    serving.join().expect("it served");
    result
}

#[test]
fn what_an_answer_says_about_a_write() {
    let applied = put(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"acks\":2}");
    assert!(matches!(applied, Err(ClientError::InDoubt(_))), "a reply that is cut is in doubt");
    assert_eq!(put(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"acks\":2}").expect("applied")["acks"], 2);
    let cases: [(&'static [u8], &str); 6] = [
        (b"HTTP/1.1 503 X\r\ncontent-length: 27\r\n\r\n{\"detail\":\"1 of 2 reachable", "refused"),
        (b"HTTP/1.1 504 X\r\ncontent-length: 0\r\n\r\n", "in doubt"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", "in doubt"),
        (b"HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n", "refused"),
        (b"", "in doubt"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull junk", "applied"),
    ];
    for (answer, expected) in cases {
        let got = match put(answer) {
            Ok(_) => "applied",
            Err(ClientError::InDoubt(_)) => "in doubt",
            Err(ClientError::Refused(_)) => "refused",
            Err(_) => "other",
        };
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn what_an_answer_says_about_a_read() {
    assert_eq!(
        get(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\0").expect("read"),
        KeyReply::Value(b"\xff\0".to_vec())
    );
    let absent = get(b"HTTP/1.1 404 X\r\ncontent-length: 28\r\n\r\n{\"detail\":\"there is no key\"}");
    assert!(matches!(&absent, Err(ClientError::Refused(text)) if text == "there is no key"), "{absent:?}");
    assert!(matches!(get(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"), Err(ClientError::Refused(_))));
    assert!(matches!(get(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"), Err(ClientError::Failed(_))));
    assert!(matches!(get(b"nonsense"), Err(ClientError::Failed(_))));
}

#[test]
fn a_port_where_nobody_listens_leaves_nothing_in_doubt() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let client = HttpClient::new(&format!("http://127.0.0.1:{port}/"), None).expect("an address");
    let error = client.put::<Value>("/v1/x", &[], b"v").expect_err("nobody is there");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    for bad in ["127.0.0.1:8379", "https://x", "http://", "http://a/b", ""] {
        assert!(matches!(HttpClient::new(bad, None), Err(ClientError::Address(_))), "{bad}");
    }
}

#[test]
fn paths_and_passwords_are_written_as_the_standards_have_it() {
    assert_eq!(encode_segment(b"a/b c.\xff"), "a%2Fb%20c.%FF");
    assert_eq!(encode_segment(b".."), "%2E%2E");
    assert_eq!(encode_segment(b"."), "%2E");
    for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(text.as_bytes()), expected);
    }
}
